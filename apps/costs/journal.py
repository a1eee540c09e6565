"""The journal of a closed month: what chargeback units are posted, balanced to zero. Pure; `journal_books` reads.

One document per team statement of a chargeback unit, under the statement's number. The unit's expense account and the
statement's cost centre are debited with its amount; the platform's accounts are credited: metered use, shares of common
cost and rounding to *recovery*, corrections and credits to their own. A negative part changes sides, never its sign:
ledgers take no negative debits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from apps.costs.choices import LineSort

HEADER = (
    "period", "date", "document_number", "account", "cost_centre", "debit", "credit", "currency", "text",
)  # fmt: skip
#: Sort of a statement line → the purpose whose account is credited.
PURPOSE_OF = {LineSort.CORRECTION: "correction", LineSort.CREDIT: "credit"}
RECOVERY = "recovery"
_WORDS = {RECOVERY: "use and shares of common cost", "correction": "corrections", "credit": "credits"}


class Incomplete(Exception):
    """The journal cannot be written: accounts or cost centres are missing. `missing` says which, one text each."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__("; ".join(missing))
        self.missing = list(missing)


@dataclass(frozen=True, slots=True)
class Posted:
    """A statement to be posted: who pays from which account, and its amount by sort of line."""

    number: str
    owner: str
    account: str
    cost_centre: str
    currency: str
    by_sort: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal; exactly one of debit and credit is above zero."""

    number: str
    account: str
    cost_centre: str
    debit: Decimal
    credit: Decimal
    currency: str
    text: str


def entries(month: date, statements: Iterable[Posted], accounts: Mapping[str, tuple[str, str]]) -> list[Entry]:
    """Return the entries, debit equal to credit per document and in all; `accounts`: purpose → (account, cost centre).

    Statements of zero are left out. Raises Incomplete with everything that is missing, not only the first.
    """
    posted = list(statements)
    missing = _missing(posted, accounts)
    if missing:
        raise Incomplete(missing)
    return [entry for statement in posted for entry in _document(month, statement, accounts)]


def _parts(statement: Posted) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for sort, amount in sorted(statement.by_sort.items()):
        purpose = PURPOSE_OF.get(LineSort(sort), RECOVERY)
        found[purpose] = found.get(purpose, Decimal(0)) + amount
    return {purpose: amount for purpose, amount in found.items() if amount}


def _missing(statements: Sequence[Posted], accounts: Mapping[str, tuple[str, str]]) -> list[str]:
    found: list[str] = []
    for statement in statements:
        if not _parts(statement):
            continue
        if not statement.account:
            found.append(f"the expense account of {statement.owner} (statement {statement.number})")
        if not statement.cost_centre:
            found.append(f"the cost centre of {statement.owner} (statement {statement.number})")
    for purpose in sorted({purpose for statement in statements for purpose in _parts(statement)}):
        if _account(purpose, accounts) is None:
            found.append(f"the platform's account for {_WORDS[purpose]} ({purpose})")
    return found


def _account(purpose: str, accounts: Mapping[str, tuple[str, str]]) -> tuple[str, str] | None:
    return accounts.get(purpose) or accounts.get(RECOVERY)


def _document(month: date, statement: Posted, accounts: Mapping[str, tuple[str, str]]) -> Iterator[Entry]:
    for purpose, amount in sorted(_parts(statement).items()):
        platform = _account(purpose, accounts)
        if platform is None:  # checked for all statements before
            raise Incomplete([purpose])
        text = f"GPU pool {month:%Y-%m}, {statement.owner}: {_WORDS[purpose]}"
        payer = (statement.account, statement.cost_centre)
        debited, credited = (payer, platform) if amount > 0 else (platform, payer)
        size, zero = abs(amount), Decimal(0)
        yield Entry(statement.number, *debited, size, zero, statement.currency, text)
        yield Entry(statement.number, *credited, zero, size, statement.currency, text)


def rows(month: date, posting_date: date, found: Iterable[Entry]) -> Iterator[list[object]]:
    """Yield the rows of the file, in `HEADER`'s order; an empty side is an empty cell."""
    for entry in found:
        yield [
            f"{month:%Y-%m}", posting_date, entry.number, entry.account, entry.cost_centre, entry.debit or None,
            entry.credit or None, entry.currency, entry.text,
        ]  # fmt: skip
