"""The command line of GPU Commons: a client of its API, without Django."""
