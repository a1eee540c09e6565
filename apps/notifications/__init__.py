"""In-app and mail; consumes the outbox."""
