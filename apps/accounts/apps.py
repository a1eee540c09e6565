"""App configuration of the accounts room."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """People, sign-in, sessions, API tokens."""

    name = "apps.accounts"
    label = "accounts"
