"""Releases: feasibility, canary, promotion, roll-back, enforcement, proof of placement."""
