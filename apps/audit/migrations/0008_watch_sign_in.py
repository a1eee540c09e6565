"""Who signs in as whom is watched as well: identities at providers, and second factors without their counters."""

from django.db import migrations

from apps.audit.watching import watch


class Migration(migrations.Migration):
    dependencies = [("audit", "0007_watch_starts_at"), ("accounts", "0005_second_persons")]
    operations = [
        watch("accounts_externalidentity", ("provider_id", "subject", "user_id", "provisioned", "active")),
        watch(
            "accounts_secondfactor",
            (
                "user_id", "kind", "secret", "credential_id", "public_key", "codes", "confirmed_at", "removed_at",
            ),
        ),
    ]  # fmt: skip
