"""`manage.py rotate_keys`: encrypt every stored secret under the newest key."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from apps.clusters import actions
from apps.core.actor import Actor, Channel


class Command(BaseCommand):
    """Exit codes: 0 all is under the newest key, 1 a key is missing or malformed (what could be done is done)."""

    help = (
        "Encrypt every stored secret (of clusters, sources, stores, registries, webhooks) under the first key in"
        " COMMONS_CREDENTIALS_KEY. Put the new key in front, keep the old ones behind it, restart, run this, then take"
        " the old ones out. It may run again."
    )
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate, print how many, and leave with an error where a key is missing."""
        actor = Actor.system("clusters.rotate_keys", Channel.COMMAND)
        missing: list[str] = []
        try:
            rotated, total = actions.rotate_keys(actor=actor)
            self.stdout.write(
                f"{rotated} encrypted anew under the newest key, {total - rotated} were already; {total} clusters in"
                " all."
            )
        except actions.KeysMissing as error:
            self.stdout.write(f"{error.rotated} encrypted anew under the newest key.")
            missing.extend(error.clusters)
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=1) from error
        for done in actions.rotate_other_secrets(actor=actor):
            left = done.total - done.rotated - len(done.missing)
            self.stdout.write(f"{done.column.label}: {done.rotated} encrypted anew, {left} were already.")
            missing.extend(f"{name} ({done.column.label})" for name in done.missing)
        if missing:
            raise CommandError(
                f"No key in COMMONS_CREDENTIALS_KEY opens the credentials of {', '.join(missing)}. Put the key"
                " they were encrypted with behind the newest one and run this again, or replace their credentials.",
                returncode=1,
            )
