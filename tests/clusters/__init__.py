"""Tests of the clusters room."""
