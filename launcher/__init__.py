"""Runs GPU Commons on one machine without configuration: embedded PostgreSQL and Redis, and a process supervisor.

Standard library only: it works before anything but the locked requirements is set up, and never imports Django.
"""
