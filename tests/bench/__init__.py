"""Benchmarks: each prints its figure, the machine and its load."""
