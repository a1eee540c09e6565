"""The first platform admin of a new installation."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.accounts.models import User
from apps.teams import scope

pytestmark = pytest.mark.django_db


@pytest.mark.requirement("installation-4.5")
def test_the_first_admin_can_sign_in_and_there_is_only_one_first() -> None:
    """The command prints a password that works; run again it refuses, and changes nothing."""
    said = StringIO()
    call_command("make_admin", "admin@example.com", "Platform admin", stdout=said)
    user = User.objects.get(email="admin@example.com")
    password = said.getvalue().split("shown once: ")[1].strip()
    assert user.check_password(password)
    assert scope.resolve(user.pk).everywhere("clusters.cluster.manage")
    with pytest.raises(CommandError, match="already"):
        call_command("make_admin", "second@example.com", stdout=StringIO())
    assert not User.objects.filter(email="second@example.com").exists()


@pytest.mark.requirement("installation-4.5")
def test_an_address_that_is_none_is_refused() -> None:
    """With a message that says so, and nobody is made."""
    with pytest.raises(CommandError, match="e-mail"):
        call_command("make_admin", "not an address", stdout=StringIO())
    assert not User.objects.exists()
