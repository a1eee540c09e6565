"""Statements with lines and files behind the wall, by the team and unit on the row as frozen."""

from django.db import migrations

from apps.core.row_security import table

STATEMENT = """(
  team_id IN (SELECT unnest(commons.wall_teams())) OR unit_id IN (SELECT unnest(commons.wall_units()))
)"""
#: A period's own files hold everybody's lines: they have no statement, and nobody behind a wall gets them.
OF_STATEMENT = "EXISTS (SELECT FROM public.costs_statement s WHERE s.id = statement_id)"


class Migration(migrations.Migration):
    dependencies = [("costs", "0011_second_persons"), ("teams", "0005_row_security")]
    operations = [
        table("costs_statement", STATEMENT),
        table("costs_statementline", OF_STATEMENT),
        table("costs_statementfile", OF_STATEMENT),
    ]
