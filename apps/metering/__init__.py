"""Sources, ingest runs, hourly facts, capacity lines."""
