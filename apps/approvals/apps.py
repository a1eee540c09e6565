"""App configuration of the approvals room."""

from django.apps import AppConfig


class ApprovalsConfig(AppConfig):
    """Policy versions, approval requests, stages, decisions, grants."""

    name = "apps.approvals"
    label = "approvals"

    def ready(self) -> None:
        """Say what keeps a team from being archived, and two accounts from being merged."""
        from apps.accounts.ports import register_merge_objection
        from apps.approvals.team_objections import both_sides, open_requests
        from apps.teams.ports import register_team_objection

        register_team_objection(open_requests)
        register_merge_objection("approvals", both_sides)
