"""The simulated cluster for tests of the clusters room."""

from tests.cluster.fixtures import simulated, simulator

__all__ = ["simulated", "simulator"]
