"""Price, quantity and mix: exact for any two months, and what each of them alone means. No database."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs.explaining import Item, ItemKey, exact_effects, explain, merged

HOUR = MILLISECONDS_PER_HOUR
KEYS: list[ItemKey] = [("gpu", "a100"), ("gpu", "h100"), ("gpu", "mig"), ("cpu", "dc1"), ("memory", "dc1")]
_months = st.dictionaries(
    st.sampled_from(KEYS),
    st.tuples(st.integers(1, 10**12), st.integers(0, 10**10).map(lambda value: Decimal(value).scaleb(-8))),
)


def month(**hours_and_price: tuple[int, str]) -> dict[ItemKey, Item]:
    """Items of GPUs: name → (GPU-hours, price)."""
    return {
        ("gpu", name): Item(hours * HOUR, Decimal(hours * HOUR) * Decimal(price))
        for name, (hours, price) in hours_and_price.items()
    }


def drawn(values: dict[ItemKey, tuple[int, Decimal]]) -> dict[ItemKey, Item]:
    return {key: Item(quantity, quantity * price) for key, (quantity, price) in values.items()}


def cost(items: dict[ItemKey, Item]) -> Fraction:
    return sum((Fraction(item.product) for item in items.values()), Fraction(0)) / HOUR


def shown(items: dict[ItemKey, Item]) -> Money:
    exact = cost(items)
    return Money((Decimal(exact.numerator) / Decimal(exact.denominator)).quantize(Decimal("0.01")), "USD")


@pytest.mark.requirement("monthly-report-1.1")
@given(_months, _months)
def test_the_effects_are_the_change_exactly(
    before: dict[ItemKey, tuple[int, Decimal]], after: dict[ItemKey, tuple[int, Decimal]]
) -> None:
    old, new = drawn(before), drawn(after)
    assert sum(exact_effects(old, new)) == cost(new) - cost(old)
    effects = explain(old, new, shown_before=shown(old), shown_after=shown(new))
    assert effects.price + effects.quantity + effects.mix == effects.change == shown(new) - shown(old)
    for rounded, exact in zip((effects.price, effects.quantity, effects.mix), exact_effects(old, new), strict=True):
        assert abs(Fraction(rounded.amount) - exact) <= Fraction(3, 100)


@pytest.mark.requirement("monthly-report-1.2")
def test_what_is_new_or_gone_has_no_price_effect() -> None:
    before = month(a100=(100, "3.00"), l4=(100, "1.00"))
    after = month(a100=(100, "3.00"), h100=(100, "5.00"))
    price, quantity, mix = exact_effects(before, after)
    assert (price, quantity, mix) == (0, 0, 400)
    # All of it new, all of it gone: quantity alone, there is no earlier average to compare with.
    assert exact_effects({}, after) == (0, 800, 0)
    assert exact_effects(before, {}) == (0, -400, 0)
    # A measure of its own is explained by itself: storage never makes GPUs dearer.
    storage: dict[ItemKey, Item] = {("storage", "dc1"): Item(10 * HOUR, Decimal(10 * HOUR) * 2)}
    assert exact_effects(before, {**before, **storage}) == (0, 20, 0)


@pytest.mark.requirement("monthly-report-1.3")
def test_each_cause_alone_is_its_effect_alone() -> None:
    before = month(a100=(100, "3.00"), h100=(50, "6.00"))
    assert exact_effects(before, month(a100=(100, "3.30"), h100=(50, "6.00"))) == (30, 0, 0)
    assert exact_effects(before, month(a100=(200, "3.00"), h100=(100, "6.00"))) == (0, 600, 0)
    # The same 150 GPU-hours, fifty of them moved to the dearer class.
    assert exact_effects(before, month(a100=(50, "3.00"), h100=(100, "6.00"))) == (0, 0, 150)


@pytest.mark.requirement("monthly-report-1.1")
def test_all_three_at_once_worked_by_hand() -> None:
    """C₀ = 100 × 3 + 50 × 6 = 600, P₀ = 4; C₁ = 120 × 2.70 + 80 × 6 = 804: −36 + 200 + 40."""
    before, after = month(a100=(100, "3.00"), h100=(50, "6.00")), month(a100=(120, "2.70"), h100=(80, "6.00"))
    assert exact_effects(before, after) == (-36, 200, 40)
    both = merged([before, after])
    assert both["gpu", "a100"].quantity_ms == 220 * HOUR


@pytest.mark.requirement("monthly-report-1.1")
def test_the_rest_of_rounding_goes_somewhere() -> None:
    """Shown amounts were rounded to their own totals: the effects follow them, not the exact sums."""
    before, after = month(a100=(100, "3.00")), month(a100=(100, "3.00"))
    effects = explain(
        before, after, shown_before=Money(Decimal("300.00"), "USD"), shown_after=Money(Decimal("300.01"), "USD")
    )
    assert effects.price + effects.quantity + effects.mix == Money(Decimal("0.01"), "USD")
