"""Quota requests and change requests behind the wall: the workspace's team, and whoever sees the approval."""

from django.db import migrations

from apps.core.row_security import table

APPROVED = "EXISTS (SELECT FROM public.approvals_approvalrequest r WHERE r.id = approval_id)"
WORKSPACE = """EXISTS (SELECT FROM public.quotas_workspace w
  WHERE w.id = workspace_id AND w.team_id IN (SELECT unnest(commons.wall_teams())))"""
# A cluster's own changes are the platform's: who holds a role for the whole installation has no wall to pass.
RECEIVER = "receiver_id IN (SELECT unnest(commons.wall_teams()))"


class Migration(migrations.Migration):
    dependencies = [("quotas", "0006_baseline_asked"), ("approvals", "0008_row_security")]
    operations = [
        table("quotas_quotarequest", f"({WORKSPACE} OR {APPROVED})"),
        table("quotas_changerequest", f"({WORKSPACE} OR {RECEIVER} OR {APPROVED})"),
    ]
