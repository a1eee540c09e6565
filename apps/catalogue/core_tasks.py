"""Sweeps of hashing and uploads."""
