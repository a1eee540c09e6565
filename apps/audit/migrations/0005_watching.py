"""The tables in which rights, quotas, prices and bills stand are watched: a trigger notes every change (0003).

This room knows the names of those tables and nothing else of them; the migrations named below made them.
"""

from django.db import migrations

from apps.audit.watching import watch


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0004_keeping_rows"),
        ("accounts", "0002_identity"),
        ("teams", "0002_identity"),
        ("approvals", "0004_depth"),
        ("quotas", "0003_drain_asked"),
        ("rates", "0003_money"),
        ("costs", "0003_money"),
    ]
    operations = [
        watch(
            "accounts_user",
            (
                "email", "display_name", "password", "is_active", "is_superuser", "kind", "may_use_password",
                "merged_into_id", "erased_at",
            ),
        ),
        watch(
            "accounts_apitoken",
            ("user_id", "digest", "read_only", "expires_at", "revoked_at", "limited", "permissions"),
        ),
        watch("teams_rolegrant", ("user_id", "role", "unit_id", "team_id", "expires_at", "revoked_at", "mapping_id")),
        watch("teams_membership", ("user_id", "team_id", "valid", "mapping_id")),
        watch("teams_groupmapping"),
        watch("approvals_policyversion"),
        watch("approvals_delegation"),
        watch("approvals_decision"),
        watch("approvals_grant"),
        watch(
            "quotas_quota",
            (
                "workspace_id", "flavour_id", "guaranteed", "borrow_mode", "borrow_limit", "lend_mode", "lend_limit",
                "serving", "valid", "request_id",
            ),
        ),
        watch("rates_ratecard"),
        watch("rates_rate"),
        watch("costs_period", ("month", "start", "end", "status", "bill", "currency", "digest", "closed_by_id")),
        watch("costs_statement"),
    ]  # fmt: skip
