"""What filters say where they filter nothing."""

from __future__ import annotations

import django_filters

from apps.clusters.models import Cluster
from apps.core.filters import CommonsFilterSet


class _Filter(CommonsFilterSet):
    simulated = django_filters.BooleanFilter()
    name = django_filters.ChoiceFilter(choices=[("a", "A")])

    class Meta:
        model = Cluster
        fields: list[str] = []


def test_a_filter_that_is_not_set_says_all() -> None:
    shown = str(_Filter({}, queryset=Cluster.objects.none()).form)
    assert shown.count(">All</option>") == 2
    assert "Unknown" not in shown
    assert "---" not in shown
