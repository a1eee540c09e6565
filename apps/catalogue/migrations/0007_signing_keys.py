"""Keys that signatures over manifests are verified with; a key is revoked, never changed, and stays revoked."""

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.db import migrations, models

_GUARD = """
CREATE FUNCTION catalogue_guard_signing_key() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  moving text[] := ARRAY['revoked_at', 'revoked_by_id', 'revoked_reason', 'void_from', 'version', 'updated_at'];
BEGIN
  IF TG_OP = 'DELETE' OR to_jsonb(NEW) - moving IS DISTINCT FROM to_jsonb(OLD) - moving
     OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
     OR (OLD.void_from IS NOT NULL AND (NEW.void_from IS NULL OR NEW.void_from > OLD.void_from)) THEN
    RAISE EXCEPTION 'a signing key is revoked, never changed' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER catalogue_signing_key_guard BEFORE UPDATE OR DELETE ON catalogue_signingkey
  FOR EACH ROW EXECUTE FUNCTION catalogue_guard_signing_key();
"""
_UNGUARD = """
DROP TRIGGER catalogue_signing_key_guard ON catalogue_signingkey;
DROP FUNCTION catalogue_guard_signing_key();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_second_persons"),
        ("catalogue", "0006_row_security_planned"),
        ("teams", "0005_row_security"),
    ]

    operations = [
        migrations.AddField(
            model_name="evidence",
            name="verified_at",
            field=models.DateTimeField(help_text="When: the key was in force then.", null=True),
        ),
        migrations.CreateModel(
            name="SigningKey",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("version", models.PositiveIntegerField(default=1, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("name", models.CharField(max_length=100, unique=True)),
                ("holder", models.CharField(help_text="Who or what holds the private key, and where.", max_length=300)),
                ("public_key", models.TextField(help_text="PEM (SubjectPublicKeyInfo).")),
                (
                    "algorithm",
                    models.CharField(
                        choices=[
                            ("ecdsa-p256", "ECDSA on P-256, SHA-256"),
                            ("ed25519", "Ed25519"),
                            ("rsa-pss", "RSA with PSS, SHA-256"),
                            ("rsa-pkcs1v15", "RSA with PKCS #1 v1.5, SHA-256"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "fingerprint",
                    models.CharField(
                        help_text="SHA-256 of the key's DER: known only once.", max_length=64, unique=True
                    ),
                ),
                ("valid_from", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("revoked_at", models.DateTimeField(null=True)),
                ("revoked_reason", models.CharField(blank=True, max_length=2000)),
                (
                    "void_from",
                    models.DateTimeField(
                        help_text="Signatures that came in from then on count no more: the key was in other hands.",
                        null=True,
                    ),
                ),
                (
                    "registered_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.user"
                    ),
                ),
                (
                    "revoked_by",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.user"
                    ),
                ),
                ("teams", models.ManyToManyField(related_name="signing_keys", to="teams.team")),
            ],
        ),
        migrations.AddField(
            model_name="evidence",
            name="signing_key",
            field=models.ForeignKey(
                help_text="What a signature was verified with.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="evidence",
                to="catalogue.signingkey",
            ),
        ),
        migrations.AddConstraint(
            model_name="evidence",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("signing_key__isnull", True), ("verified_at__isnull", True)),
                    models.Q(("kind", "signature"), ("signing_key__isnull", False), ("verified_at__isnull", False)),
                    _connector="OR",
                ),
                name="evidence_signature_verified",
            ),
        ),
        migrations.AddConstraint(
            model_name="signingkey",
            constraint=models.CheckConstraint(
                condition=models.Q(("expires_at__gt", models.F("valid_from"))), name="signing_key_some_time"
            ),
        ),
        migrations.AddConstraint(
            model_name="signingkey",
            constraint=models.CheckConstraint(
                condition=models.Q(("void_from__isnull", True), ("revoked_at__isnull", False), _connector="OR"),
                name="signing_key_void_is_revoked",
            ),
        ),
        migrations.RunSQL(_GUARD, _UNGUARD),
    ]
