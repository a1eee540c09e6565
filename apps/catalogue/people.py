"""Who stands behind a version and the evidence about it: whom the separation of duties keeps from deciding."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import Exists, OuterRef, Q

from apps.catalogue.models import CardRevision, Evidence, ModelVersion
from apps.core.row_security import lifted


@lifted("the separation of duties looks at everybody's words")
def writers(version: ModelVersion) -> set[int]:
    """Return everybody who wrote a part of a version: each editor, not only the last, and the card's authors."""
    found = {version.author_id, version.last_editor_id, *version.editors}
    if version.card is None:
        return found
    # What an earlier revision says is mostly what this one says: saving it again launders no author.
    cards = CardRevision.objects.filter(model_id=version.model_id, number__lte=version.card.number)
    return found | set(cards.values_list("author_id", flat=True))


@lifted("the separation of duties looks at everybody's evidence")
def producers(version: ModelVersion, *, ever: bool = False) -> set[int]:
    """Return who added evidence about these bytes, who keeps the CI systems that did, and who answered controls.

    `ever`: also of evidence that was withdrawn since, which an approval in the meantime may rest on.
    """
    rows = Evidence.objects.filter(subject_digest=version.digest)
    if not ever:
        rows = rows.filter(withdrawn_at__isnull=True)
    people = set(rows.filter(produced_by__isnull=False).values_list("produced_by_id", flat=True))
    kept = rows.filter(producer__isnull=False).values_list("producer__created_by_id", "producer__keepers").distinct()
    for created_by, keepers in kept:
        people |= {created_by, *keepers}
    return {one for one in people if one} | set(version.answers.values_list("author_id", flat=True))


def wrote(user_ids: Collection[int]) -> Q:
    """Return the condition "`writers` names any of these people", for rows that point at a `model_version`."""
    cards = CardRevision.objects.filter(
        author__in=user_ids, model=OuterRef("model_version__model"), number__lte=OuterRef("model_version__card__number")
    )
    return (
        Q(model_version__author__in=user_ids)
        | Q(model_version__last_editor__in=user_ids)
        | Q(model_version__editors__overlap=list(user_ids))
        | Q(Exists(cards))
    )


def proved(user_ids: Collection[int], *, ever: bool = False) -> Q:
    """Return the condition "`producers` names any of these people", for rows that point at a `model_version`."""
    gave = (
        Q(produced_by__in=user_ids)
        | Q(producer__created_by__in=user_ids)
        | Q(producer__keepers__overlap=list(user_ids))
    )
    found = Evidence.objects.filter(gave) if ever else Evidence.objects.filter(gave, withdrawn_at__isnull=True)
    digests = found.values("subject_digest")
    return Q(model_version__digest__in=digests) | Q(model_version__answers__author__in=user_ids)
