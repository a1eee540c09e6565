"""Clusters, flavours, pools, inventory and their clients."""
