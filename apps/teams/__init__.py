"""Units, teams, membership, role grants, the one scope resolver."""
