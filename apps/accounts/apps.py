"""App configuration of the accounts room."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """People, sign-in, sessions, API tokens."""

    name = "apps.accounts"
    label = "accounts"

    def ready(self) -> None:
        """Name the columns that hold secrets."""
        from apps.core.crypto import register_secrets

        register_secrets("accounts.IdentityProvider", "client_secret", "Client secrets of identity providers")
        register_secrets("accounts.SignInSession", "id_token", "ID tokens of sessions")
