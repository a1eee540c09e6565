"""`manage.py set_initial_password EMAIL REASON`: the way back in when no platform admin is left who may do it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from apps.accounts.actions import reset_password
from apps.accounts.factor_resets import tell_of_break_glass
from apps.accounts.models import User
from apps.core.actor import Actor, Channel
from apps.core.errors import CommonsError


class Command(BaseCommand):
    """Set an initial password without a platform admin; recorded, and told to the person, admins and compliance."""

    help = "Set an initial password for somebody and print it, once; it must be changed at the next sign-in."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("email")
        parser.add_argument("reason", help="why, and who asked: the audit trail keeps it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Set it. Raises CommandError for an unknown person, without a reason, or for the account of a program."""
        user = User.objects.filter(email__iexact=options["email"].strip()).first()
        if user is None:
            raise CommandError("There is no account with this address.")
        if not options["reason"].strip():
            raise CommandError("Say why, and how you made sure who asked: the audit trail keeps it.")
        actor = Actor.system("accounts.set_initial_password", Channel.COMMAND)
        try:
            with transaction.atomic():
                user, initial = reset_password(user.pk, actor=actor)
                tell_of_break_glass(user, "the password", options["reason"], actor=actor)
        except CommonsError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{user.email} is signed out everywhere. Initial password, shown once: {initial}")
