"""Budgets are met, used up, and refused with the nearest that can be met."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gracile.errors import BudgetError
from gracile.graph import Provenance, capture, trace
from gracile.prune import Bytes, Global, Macs, Params, PerLayer, allocate

WIDTHS = (8, 12, 6)


@pytest.fixture(scope="module")
def chain() -> Provenance:
    sizes = (4, *WIDTHS, 3)
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return trace(capture(nn.Sequential(*layers), (torch.zeros(1, 4),)))


def scores(found: Provenance, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {g.name: draw.random(g.units) for g in found.groups}


def kept(found: Provenance, removed) -> dict[str, int]:
    return {g.name: g.units - len(removed.get(g.name, ())) for g in found.groups}


@settings(max_examples=30)
@given(ratio=st.floats(0, 0.99), round_to=st.integers(1, 5))
def test_per_layer_never_removes_more_than_its_share(chain, ratio, round_to) -> None:
    removed = allocate(chain, chain.groups, scores(chain), PerLayer(ratio=ratio), round_to=round_to)
    for group, left in zip(chain.groups, kept(chain, removed).values(), strict=True):
        assert 1 <= left <= group.units
        assert left >= group.units * (1 - ratio) - 1e-6
        assert left == group.units or left % round_to == 0
        if round_to == 1:
            assert left < group.units * (1 - ratio) + 1


def test_the_lowest_scores_go(chain) -> None:
    values = scores(chain)
    removed = allocate(chain, chain.groups, values, PerLayer(ratio=0.5))
    for name, units in removed.items():
        left = np.delete(values[name], units)
        assert values[name][list(units)].max() < left.min()


@settings(max_examples=30)
@given(ratio=st.floats(0, 0.85), seed=st.integers(0, 50))
def test_global_removes_the_lowest_of_all(chain, ratio, seed) -> None:
    values = scores(chain, seed)
    removed = allocate(chain, chain.groups, values, Global(ratio=ratio))
    assert sum(map(len, removed.values())) == int(ratio * sum(WIDTHS) + 1e-9)
    gone = [values[n][u] for n, units in removed.items() for u in units]
    for group in chain.groups:
        left = np.delete(values[group.name], list(removed.get(group.name, ())))
        assert len(left) >= 1
        if gone and len(left) > 1:  # the last unit of a group stays whatever its score
            assert left.min() >= max(gone) or sorted(left)[1] >= max(gone) or len(left) == 1


@settings(max_examples=40)
@given(
    share=st.floats(0.2, 1.0), kind=st.sampled_from([Macs, Params]), marginal=st.booleans(),
    seed=st.integers(0, 50),
)  # fmt: skip
def test_cost_budgets_are_met_and_no_unit_more_fits(chain, share, kind, marginal, seed) -> None:
    values = scores(chain, seed)
    removed = allocate(chain, chain.groups, values, kind(fraction_kept=share), marginal=marginal)
    field = kind.__name__.lower()

    def cost(units) -> int:
        return getattr(chain.cost(units), field)

    limit = int(share * cost({}) + 1e-6)
    assert cost(removed) <= limit
    for name, units in removed.items():
        best = max(units, key=lambda u: values[name][u])
        more = {**removed, name: tuple(u for u in units if u != best)}
        assert cost(more) > limit


@pytest.mark.parametrize("marginal", [True, False])
@pytest.mark.parametrize("round_to", [2, 4, 5])
def test_rounded_budgets_are_met_too(chain, round_to, marginal) -> None:
    removed = allocate(
        chain, chain.groups, scores(chain), Macs(fraction_kept=0.6), round_to=round_to, marginal=marginal
    )
    assert chain.cost(removed).macs <= 0.6 * chain.cost().macs
    assert all(left % round_to == 0 for name, left in kept(chain, removed).items() if name in removed)


def test_by_price_the_worthless_go_and_the_dear_stay(chain) -> None:
    values = {g.name: np.full(g.units, 1.0) for g in chain.groups}
    values[chain.groups[1].name] = np.full(12, 1e-6)
    removed = allocate(chain, chain.groups, values, Macs(fraction_kept=0.7), marginal=True)
    assert set(removed) == {chain.groups[1].name}


def test_equal_shares_are_equal(chain) -> None:
    removed = allocate(chain, chain.groups, scores(chain), Macs(fraction_kept=0.5))
    shares = [len(removed[g.name]) / g.units for g in chain.groups]
    assert max(shares) - min(shares) < 0.2


@pytest.mark.parametrize("kind", [Macs, Params])
def test_what_cannot_be_met_names_the_nearest_that_can(chain, kind) -> None:
    field = kind.__name__.lower()
    with pytest.raises(BudgetError, match="is the fewest") as caught:
        allocate(chain, chain.groups, scores(chain), kind(fraction_kept=0.01))
    nearest = float(caught.value.do.split("=")[1].split(" ")[0])
    removed = allocate(chain, chain.groups, scores(chain), kind(fraction_kept=nearest))
    assert set(kept(chain, removed).values()) == {1}
    assert field in str(caught.value)


@settings(max_examples=30)
@given(at_most=st.integers(400, 1400), bits=st.sampled_from([1, 4, 8, 32]), marginal=st.booleans())
def test_a_budget_in_bytes_is_met_and_no_unit_more_fits(chain, at_most, bits, marginal) -> None:
    """Bytes counted by hand: weights of linear layers at their bits, biases at 32."""

    def by_hand(removed) -> int:
        widths = [4, *kept(chain, removed).values(), 3]
        weights = sum(a * b for a, b in itertools.pairwise(widths))
        return -(-weights * bits // 8) + 4 * sum(widths[1:])

    values = scores(chain)
    removed = allocate(
        chain, chain.groups, values, Bytes(at_most=at_most, weight_bits=bits), marginal=marginal
    )
    assert by_hand(removed) <= at_most
    for name, units in removed.items():
        best = max(units, key=lambda u: values[name][u])
        assert by_hand({**removed, name: tuple(u for u in units if u != best)}) > at_most


def test_too_few_bytes_name_the_fewest(chain) -> None:
    with pytest.raises(BudgetError, match="is the fewest") as caught:
        allocate(chain, chain.groups, scores(chain), Bytes(at_most=10))
    fewest = int(caught.value.do.split("=")[1].split(" ")[0])
    assert fewest == 4 * (4 + 1 + 1 + 3 + 1 + 1 + 1 + 3)
    removed = allocate(chain, chain.groups, scores(chain), Bytes(at_most=fewest))
    assert set(kept(chain, removed).values()) == {1}


def test_a_global_ratio_that_would_empty_layers_is_refused(chain) -> None:
    with pytest.raises(BudgetError, match="at most 23 can go"):
        allocate(chain, chain.groups, scores(chain), Global(ratio=0.99))


def test_nothing_to_prune_is_a_budget_that_cannot_be_met(chain) -> None:
    with pytest.raises(BudgetError, match="is the fewest"):
        allocate(chain, (), {}, Macs(fraction_kept=0.5))
    assert allocate(chain, (), {}, Global(ratio=0.0)) == {}
