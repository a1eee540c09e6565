"""Policy versions, approval requests, stages, decisions, grants."""
