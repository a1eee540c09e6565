"""The simulated cluster: a small Kubernetes API server and allocation API for the demo and for tests.

Imports neither Django nor any other room.
"""

from apps.demo.cluster.app import SimulatedCluster
from apps.demo.cluster.auth import User
from apps.demo.cluster.kueue.options import KueueOptions
from apps.demo.cluster.serving.options import KServeOptions

__all__ = ["KServeOptions", "KueueOptions", "SimulatedCluster", "User"]
