"""HTTP clients of clusters and metrics servers. No interpretation of what they return."""
