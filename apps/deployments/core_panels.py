"""Endpoints and releases in the navigation and on the pages of teams and workspaces."""

from __future__ import annotations
