"""`manage.py seed_demo`: make the sample company, with progress; `--print-sign-ins` lists the ways in."""

from __future__ import annotations

import json
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.accounts.models import User
from apps.core import clock
from apps.core.errors import CommonsError
from apps.demo import company, history, identity_story, money, regulated, seed, serving_story, sharing, story


class Command(BaseCommand):
    """Make the sample company through the rooms' own actions; safe to repeat."""

    help = "Make the sample company of the demo, or list its sign-ins."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--print-sign-ins", action="store_true", help="only list the sign-ins")
        parser.add_argument("--json", action="store_true", help="list them as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Seed, or list. Raises CommandError where this is no demo or a step fails."""
        if not settings.COMMONS_DEMO:
            raise CommandError("This is no demo installation (COMMONS_DEMO is not set): nothing is seeded here.")
        if options["print_sign_ins"]:
            self.sign_ins(as_json=options["json"])
            return
        try:
            context = seed.Context.from_environment()
        except KeyError as error:
            raise CommandError(f"{error} is not set; `make demo` sets it.") from error
        # The books first: what is left of a budget, and so what policy may approve, stands on them.
        steps = (
            *seed.STEPS,
            seed.Step("Metering the history", lambda known: history.meter(known, clock.now(), self.aside)),
            *sharing.CLUSTER_STEPS,
            seed.Step("Quota of today, requested and approved", story.todays_quota),
            seed.Step("Requests under way", story.under_way),
            *sharing.TEAM_STEPS,
            seed.Step("Where clusters stand, and what may run there", serving_story.places),
            seed.Step("Policies for models and releases", serving_story.rules),
            seed.Step("Models, cards, evidence", serving_story.catalogue),
            seed.Step("Approvals of versions", serving_story.approvals_of_versions),
            *regulated.BEFORE,
            seed.Step("Endpoints, one with a canary", serving_story.endpoint),
            *regulated.AFTER,
            seed.Step("Chargeback and the unit's budget", money.chargeback),
            seed.Step("Self-test of the source of usage", money.fit),
            seed.Step("Past months closed", lambda known: money.close_months(known, self.aside)),
            seed.Step("Waiting for a second person of finance", money.waiting),
            seed.Step("Objections to statements", money.objections),
            seed.Step("Workloads and findings", money.lookouts),
            *identity_story.STEPS,
            seed.Step("Comparison with the allocation API's dollars", money.compared),
        )
        title = ""
        try:
            for step in steps:
                title = step.title
                self.tell(step.title)
                began = time.monotonic()
                said = step.run(context)
                self.told(said, began)
        except CommonsError as error:
            raise CommandError(f"{title}: {error}") from error

    def aside(self, text: str) -> None:
        """Add a line of detail below the step under way."""
        self.stdout.write(f"\n      {text}", ending="")
        self.stdout.flush()

    def tell(self, text: str) -> None:
        """Begin a line of progress."""
        self.stdout.write(f"    {text} …", ending="")
        self.stdout.flush()

    def told(self, text: str, began: float) -> None:
        """End a line of progress."""
        self.stdout.write(f" {text} ({time.monotonic() - began:.1f} s)")
        self.stdout.flush()

    def sign_ins(self, *, as_json: bool) -> None:
        """List the people of the sample company with the way to sign in."""
        present = set(User.objects.filter(is_active=True).values_list("email", flat=True))
        rows = [person for person in company.PEOPLE if person.email in present]
        if as_json:
            listed = [
                {"key": p.key, "email": p.email, "role": p.display_name, "password": seed.password()} for p in rows
            ]
            self.stdout.write(json.dumps(listed, indent=1))
            return
        self.stdout.write(f"  Sign in at {settings.COMMONS_BASE_URL}/sign-in/ with the password {seed.password()}\n")
        for person in rows:
            self.stdout.write(f"    {person.email:<32} {person.display_name:<22} {person.summary}")
