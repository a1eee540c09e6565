"""Conformance of the portal's cluster work, against any Kubernetes API."""
