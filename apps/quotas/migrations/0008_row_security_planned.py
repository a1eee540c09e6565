"""Quota and change requests ask one function for their approval: planning took longer than answering."""

from django.db import migrations

APPROVED_BEFORE = "EXISTS (SELECT FROM public.approvals_approvalrequest r WHERE r.id = approval_id)"
APPROVED = "commons.sees_request(approval_id)"
WORKSPACE_BEFORE = """EXISTS (SELECT FROM public.quotas_workspace w
  WHERE w.id = workspace_id AND w.team_id IN (SELECT unnest(commons.wall_teams())))"""
WORKSPACE = """workspace_id IN (SELECT w.id FROM public.quotas_workspace w
  WHERE w.team_id = ANY ((SELECT commons.wall_teams())::bigint[]))"""
RECEIVER = "receiver_id IN (SELECT unnest(commons.wall_teams()))"


def _policy(name: str, inside: str) -> str:
    return f"ALTER POLICY tenant_wall ON public.quotas_{name} USING ((SELECT commons.wall_open()) OR {inside})"


class Migration(migrations.Migration):
    dependencies = [("quotas", "0007_row_security"), ("approvals", "0009_row_security_planned")]
    operations = [
        migrations.RunSQL(
            _policy("quotarequest", f"({WORKSPACE} OR {APPROVED})"),
            _policy("quotarequest", f"({WORKSPACE_BEFORE} OR {APPROVED_BEFORE})"),
        ),
        migrations.RunSQL(
            _policy("changerequest", f"({WORKSPACE} OR {RECEIVER} OR {APPROVED})"),
            _policy("changerequest", f"({WORKSPACE_BEFORE} OR {RECEIVER} OR {APPROVED_BEFORE})"),
        ),
    ]
