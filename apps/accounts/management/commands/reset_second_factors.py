"""`manage.py reset_second_factors EMAIL REASON`: the way back in when nobody is left who could do it on a page."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from apps.accounts.factor_resets import reset_factors, tell_of_break_glass
from apps.accounts.models import User
from apps.core.actor import Actor, Channel
from apps.core.errors import CommonsError


class Command(BaseCommand):
    """Remove all second factors of one person without a second person; recorded, and told to admins and compliance."""

    help = "Remove all second factors of a person who lost them; their sessions end and they are told by mail."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("email")
        parser.add_argument("reason", help="why, and who asked: the audit trail keeps it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Reset them. Raises CommandError for an unknown person, without a reason, or where there is none."""
        user = User.objects.filter(email__iexact=options["email"].strip()).first()
        if user is None:
            raise CommandError("There is no account with this address.")
        actor = Actor.system("accounts.reset_second_factors", Channel.COMMAND)
        try:
            with transaction.atomic():
                reset_factors(user.pk, options["reason"], actor=actor, proved_at=None)
                tell_of_break_glass(user, "second factors", options["reason"], actor=actor)
        except CommonsError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{user.email} has no second factor any more and is signed out everywhere.")
