"""What every room's tests use: `settle()`, `assert_queries()`, the database of a test run."""

from __future__ import annotations

from apps.core.testing.settling import assert_queries, deliver_on_commit, settle

__all__ = ["assert_queries", "deliver_on_commit", "settle"]
