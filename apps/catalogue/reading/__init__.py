"""Readers of stores: the files below a location, and their bytes. HTTP and mounted folders; no rows, no decisions."""
