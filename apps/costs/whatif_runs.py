"""What-ifs that take long: queued, answered by a worker with progress, kept for a month for the person who asked."""

from __future__ import annotations

import logging
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F, Q

from apps import audit
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest_of
from apps.core.errors import Invalid, NotAllowed, NotVisible
from apps.core.money import Money
from apps.core.permissions import may
from apps.core.sweeps import nudge
from apps.costs import events
from apps.costs import whatif_questions as questions
from apps.costs import whatif_reading as reading
from apps.costs.choices import UNDER_WAY, FileStatus
from apps.costs.models import WhatIfRun
from apps.costs.seconding import someone
from apps.costs.whatif import Compared
from apps.costs.whatif_questions import Question
from apps.teams import scope

logger = logging.getLogger(__name__)
#: Spans that are answered at once: longer ones, or more changes of price, are for a worker.
DAYS_AT_ONCE, PIECES_AT_ONCE = 93, 12
KEPT, SILENCE = timedelta(days=30), timedelta(minutes=10)
MAX_ATTEMPTS = 3
#: Questions that one person may have under way.
MAX_OPEN = 5


def at_once(question: Question, prices: Any) -> bool:
    """Whether a page may work it out itself."""
    short = question.end - question.start <= timedelta(days=DAYS_AT_ONCE)
    return short and sum(map(len, prices.edges(question.start, question.end).values())) <= PIECES_AT_ONCE


def reach_of(user: Any) -> str:
    """Return a digest of what the person may ask about: an answer is shown while it stands as when it was made."""
    everywhere, units, teams = scope.of(user).reach_of_rows(reading.RUN)
    return digest_of([everywhere, units, teams])


@transaction.atomic
def ask(question: Question, *, actor: Actor) -> WhatIfRun:
    """Queue a question for a worker; the same one under way is returned.

    Raises NotAllowed, Invalid for prices that cannot be tried or with too many questions under way.
    """
    user = someone(actor)
    if user is None or not may(user, reading.RUN, None):
        raise NotAllowed(rule=reading.RUN)
    questions.prices_of(question, user)
    questions.unit_of(question, user)
    plain = question.plain()
    own = WhatIfRun.objects.filter(requested_by=user, status__in=UNDER_WAY)
    if (standing := own.filter(question=plain).first()) is not None:
        return standing
    if own.count() >= MAX_OPEN:
        raise Invalid({"": f"{MAX_OPEN} of your questions are being answered. Wait for one of them."})
    run = WhatIfRun.objects.create(requested_by=user, question=plain, created_at=clock.now())
    payload = events.WhatIfAsked(run.uid, plain["start"], plain["end"])
    audit.record(events.WHATIF_ASKED, payload, actor=actor, subject_type="costs.whatif", subject_uid=run.uid)
    from apps.costs import tasks

    nudge(tasks.answer_what_if, run.pk)
    return run


def answer_due() -> int:
    """Answer what is queued, or was begun by a worker that went silent; forget old answers. Returns how many."""
    WhatIfRun.objects.filter(created_at__lt=clock.now() - KEPT).delete()
    return sum(answer(pk) for pk in WhatIfRun.objects.filter(_free()).order_by("pk").values_list("pk", flat=True)[:20])


def _free() -> Q:
    silent = Q(status=FileStatus.RUNNING, updated_at__lt=clock.now() - SILENCE)
    return Q(status=FileStatus.QUEUED) | silent


def answer(run_id: int) -> int:
    """Answer one question; 0 where another worker is at it or nothing is left to do."""
    with transaction.atomic():
        run = WhatIfRun.objects.select_for_update(skip_locked=True).filter(_free(), pk=run_id).first()
        if run is None:
            return 0
        run.attempts += 1
        run.status, run.done, run.total, run.error = FileStatus.RUNNING, 0, 0, ""
        if run.attempts > MAX_ATTEMPTS:
            run.status, run.error = FileStatus.FAILED, f"The worker that answered it was lost {MAX_ATTEMPTS} times."
        run.bump("attempts", "status", "done", "total", "error")
        if run.status == FileStatus.FAILED:
            return 1
    try:
        plain, reach = _answered(run)
    except Invalid as invalid:
        _finish(run, status=FileStatus.FAILED, error=" ".join(text for one in invalid.errors.values() for text in one))
    except (NotAllowed, NotVisible):
        _finish(run, status=FileStatus.FAILED, error="You may not ask this any more: your rights have changed.")
    except (InterfaceError, OperationalError, MemoryError):
        # Nothing is wrong with the question: the sweep takes it up again.
        raise
    except Exception as error:
        logger.exception("a what-if could not be answered", extra={"run": str(run.uid)})
        text = f"It could not be worked out ({type(error).__name__}). Ask again; if it fails again, tell the platform."
        _finish(run, status=FileStatus.FAILED, error=text)
    else:
        _finish(run, status=FileStatus.DONE, answer=plain, reach=reach, done=F("total"))
    return 1


def _finish(run: WhatIfRun, **values: Any) -> None:
    """Write the end, unless another worker has begun anew meanwhile."""
    now = clock.now()
    rows = WhatIfRun.objects.filter(pk=run.pk, attempts=run.attempts, status=FileStatus.RUNNING)
    rows.update(**values, finished_at=now, updated_at=now, version=F("version") + 1)


def _answered(run: WhatIfRun) -> tuple[dict[str, Any], str]:
    user = run.requested_by
    if not user.is_active or not may(user, reading.RUN, None):
        raise NotAllowed(rule=reading.RUN)
    reach, question = reach_of(user), questions.load(run.question)

    def progress(done: int, total: int) -> None:
        WhatIfRun.objects.filter(pk=run.pk, attempts=run.attempts).update(
            done=done, total=total, updated_at=clock.now()
        )

    found = reading.what_if(
        user, questions.prices_of(question, user), question.start, question.end, questions.unit_of(question, user),
        by_month=True, progress=progress,
    )  # fmt: skip
    return dump(found), reach


# ---------------------------------------------------------------- stored form


def dump(found: reading.WhatIf) -> dict[str, Any]:
    """Return an answer as plain data: money as text, lines as lists."""
    return {
        "flat": found.flat,
        "total": _line(found.total),
        "groups": [
            [group.by, group.heading, group.title, [[row.name, row.slug, *_line(row.line)] for row in group.lines]]
            for group in found.groups
        ],
    }


def _line(line: Compared) -> list[Any]:
    return [_money(line.now), _money(line.then), line.unknown, line.kept, line.quantity_ms, line.gpu_ms]


def _money(money: Money | None) -> list[str] | None:
    return None if money is None else [str(money.amount), money.currency]


def load(run: WhatIfRun, user: Any) -> reading.WhatIf:
    """Return the answer of a finished what-if. Raises NotVisible where the person's rights have changed since."""
    if run.answer is None or run.reach != reach_of(user):
        raise NotVisible("Your rights have changed since this was worked out. Ask again.")
    question = questions.load(run.question)
    groups = [
        reading.Group(
            by, heading, title, [reading.NamedLine(name, slug, _compared(line)) for name, slug, *line in rows]
        )
        for by, heading, title, rows in run.answer["groups"]
    ]
    return reading.WhatIf(
        question.start, question.end, questions.unit_of(question, user), run.answer["flat"],
        _compared(run.answer["total"]), groups,
    )  # fmt: skip


def _compared(line: list[Any]) -> Compared:
    now, then, unknown, kept, quantity_ms, gpu_ms = line
    return Compared((), _read(now), _read(then), unknown, kept, quantity_ms, gpu_ms)


def _read(money: list[str] | None) -> Money | None:
    return None if money is None else Money(Decimal(money[0]), money[1])


__all__ = ["answer", "answer_due", "ask", "at_once", "load", "reach_of"]
