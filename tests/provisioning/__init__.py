"""Tests of the provisioning room."""
