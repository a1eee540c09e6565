"""Status machines as tables: a room's `choices.py` states which action leads from which status to which."""

from __future__ import annotations

from collections.abc import Mapping

from apps.core.errors import Conflict


class Transitions:
    """`{status: {action: next status}}`; what is not in the table is refused, terminal statuses have an empty row."""

    def __init__(self, table: Mapping[str, Mapping[str, str]]) -> None:
        self._table = {str(status): {a: str(t) for a, t in row.items()} for status, row in table.items()}
        targets = {target for row in self._table.values() for target in row.values()}
        if missing := targets - self._table.keys():
            raise ValueError(f"statuses without a row: {sorted(missing)}")

    def can(self, status: str, action: str) -> bool:
        """Whether `action` may be taken in `status`."""
        return action in self._table.get(str(status), {})

    def next(self, status: str, action: str) -> str:
        """Return the status that `action` leads to. Raises Conflict naming the present status otherwise."""
        try:
            return self._table[str(status)][action]
        except KeyError:
            raise Conflict(
                f"This is {status.replace('_', ' ')}: it can no longer be changed that way.", current={"status": status}
            ) from None

    def is_terminal(self, status: str) -> bool:
        """Whether nothing leads out of `status`."""
        return not self._table[str(status)]

    @property
    def statuses(self) -> list[str]:
        """Every status of the machine."""
        return list(self._table)
