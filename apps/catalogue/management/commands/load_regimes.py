"""Bring regimes and controls to what the portal ships (done by every migration, too)."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from apps.catalogue.regimes_loading import load_regimes


class Command(BaseCommand):
    """`manage.py load_regimes`."""

    help = "Load the shipped regimes and controls; what compliance published stays."

    def handle(self, *args: Any, **options: Any) -> None:
        """Say how many rows changed."""
        changed = load_regimes()
        self.stdout.write(f"{changed} rows made or changed.")
