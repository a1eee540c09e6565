"""Kueue for the simulated cluster: the rules of its kinds, a pure admission engine, and the controller around it."""
