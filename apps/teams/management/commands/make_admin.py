"""`manage.py make_admin EMAIL NAME`: the first platform admin of a new installation."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.core.actor import Actor, Channel
from apps.core.errors import CommonsError, Invalid
from apps.teams import actions
from apps.teams.choices import Role
from apps.teams.models import RoleGrant


class Command(BaseCommand):
    """Make an account (or take one that exists) and give it the role of a platform admin, recorded in the trail."""

    help = "Make the first platform admin; prints the initial password, which must be changed at the first sign-in."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("email")
        parser.add_argument("name", nargs="?", default="Platform admin", help="how pages name the person")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        """Make the admin. Raises CommandError where there is one already, or the address is none."""
        actor = Actor.system("teams.make_admin", Channel.COMMAND)
        if RoleGrant.objects.in_force().filter(role=Role.PLATFORM_ADMIN).exists():
            raise CommandError("There is a platform admin already: further ones are made on the page Role grants.")
        user = User.objects.filter(email__iexact=options["email"].strip()).first()
        password = ""
        try:
            if user is None:
                user, password = accounts.create_user(options["email"], options["name"], actor=actor)
            actions.grant_role(user.pk, Role.PLATFORM_ADMIN, reason="First set-up", actor=actor)
        except Invalid as error:
            raise CommandError("; ".join(text for texts in error.errors.values() for text in texts)) from error
        except CommonsError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{user.email} is platform admin.")
        if password:
            self.stdout.write(f"Initial password, shown once: {password}")
