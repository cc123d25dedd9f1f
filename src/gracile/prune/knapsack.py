"""Widths under a bound on measured time and one on multiply-adds: a multiple-choice knapsack.

Source: Everett, "Generalized Lagrange multiplier method for solving problems of optimum allocation of
resources", Operations Research 11 (1963): for each pair of prices, of a millisecond and of a multiply-add,
every group takes on its own the width with the least score plus price; the best of those that keep both
bounds is taken. Steps of a runtime's kernels need no special care: a width that is slower than a wider one is
never taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gracile.errors import BudgetError

PRICES = 160
ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class Item:
    """What a group may choose from: for each number of removed units the score lost, ms, MACs saved."""

    name: str
    counts: tuple[int, ...]
    errors: tuple[float, ...]
    times: tuple[float, ...]
    saved: tuple[float, ...]


def solve(
    items: Sequence[Item], *, time: float, cost: Callable[[Mapping[str, int]], int], limit: int
) -> dict[str, int]:
    """Units to remove from each group.

    Args:
        items: The groups' choices.
        time: Milliseconds that they may take together.
        cost: True multiply-adds of a choice; ``Item.saved`` adds up what groups save alone, and is corrected
            by it.
        limit: Multiply-adds that may stay.

    Raises:
        BudgetError: A bound cannot be met; names the nearest that can.

    Example:
        >>> items = [
        ...     Item(name="a", counts=(0, 1), errors=(0, 1), times=(2, 1), saved=(0, 10)),
        ...     Item(name="b", counts=(0, 1), errors=(0, 2), times=(2, 0.5), saved=(0, 10))]
        >>> solve(items, time=3, cost=lambda counts: 40 - 10 * sum(counts.values()), limit=40)
        {'a': 1, 'b': 0}
    """
    least = sum(min(item.times) for item in items)
    if least > time:
        raise BudgetError(
            "milliseconds",
            wanted=f"at most {time:.3g} ms in the layers that channels can leave",
            found=f"that {least:.3g} ms is the least measured",
            do="Ask for a larger share, remove branches first, or leave fewer layers alone.",
        )
    fewest = cost({item.name: item.counts[-1] for item in items})
    if fewest > limit:
        raise BudgetError(
            "macs", wanted=f"at most {limit:,} multiply-adds", found=f"that {fewest:,} is the fewest",
            do="Ask for a larger share or leave fewer layers alone.",
        )  # fmt: skip
    whole = cost({item.name: 0 for item in items})
    need = float(whole - limit)
    best: dict[str, int] | None = None
    for _ in range(ROUNDS):
        best = _cheapest(items, time, need)
        if best is None:
            break
        over = cost(best) - limit
        if over <= 0:
            return best
        need += over  # what groups save alone overlaps: ask for more
    raise BudgetError(
        "budget",
        wanted=f"at most {limit:,} multiply-adds in at most {time:.3g} ms",
        found="no widths among those measured that keep both bounds",
        do="Loosen one of the two bounds.",
    )


def _cheapest(items: Sequence[Item], time: float, need: float) -> dict[str, int] | None:
    """The least error among the prices' choices that take ``time`` at most and save ``need`` at least."""
    errors = np.array([e for item in items for e in item.errors])
    scale = float(errors[errors > 0].min(initial=1.0)), float(errors.max(initial=1.0))
    spread = max(max(item.times) for item in items), max(max(item.saved) for item in items)
    per_ms = _prices(scale, max(spread[0], 1e-12))
    per_mac = _prices(scale, max(spread[1], 1e-12))
    ms_price, mac_price = (grid.ravel() for grid in np.meshgrid(per_ms, per_mac))
    total = np.zeros((3, len(ms_price)))
    picks = []
    for item in items:
        table = np.array([item.errors, item.times, item.saved])
        price = table[0, :, None] + ms_price * table[1, :, None] - mac_price * table[2, :, None]
        chosen = price.argmin(0)
        total += table[:, chosen]
        picks.append(chosen)
    fits = (total[1] <= time + 1e-9) & (total[2] >= need - 1e-6)
    if not fits.any():
        return None
    at = int(np.where(fits, total[0], np.inf).argmin())
    places = _improved(items, [int(pick[at]) for pick in picks], time, need)
    return {item.name: item.counts[place] for item, place in zip(items, places, strict=True)}


def _improved(items: Sequence[Item], places: list[int], time: float, need: float) -> list[int]:
    """Use up what prices leave over: change one or two groups while that loses less and fits."""
    moves = [(i, q) for i, item in enumerate(items) for q in range(len(item.counts))]
    of = np.array([i for i, _ in moves])
    table = np.array([[items[i].errors[q], items[i].times[q], -items[i].saved[q]] for i, q in moves])
    while True:
        now = np.array([table[moves.index((i, p))] for i, p in enumerate(places)])
        left = np.array([time + 1e-9, 1e-6 - need]) - now[:, 1:].sum(0)
        change = table - now[of]  # (moves, error, time and need)
        pairs = change[:, None] + change[None]
        pairs[of[:, None] == of] = np.inf
        at = np.arange(len(moves))
        pairs[at, at] = change  # a move alone
        gain = np.where((pairs[..., 1:] <= left).all(-1), pairs[..., 0], np.inf)
        one, two = divmod(int(gain.argmin()), len(moves))
        if not gain[one, two] < -1e-12:
            return places
        for i, q in {moves[one], moves[two]}:
            places[i] = q


def _prices(errors: tuple[float, float], most: float) -> np.ndarray:
    """Zero, and prices from where nothing goes to where all goes."""
    prices: np.ndarray = np.r_[0.0, np.geomspace(errors[0] / most, errors[1] / most * 100, PRICES)]
    return prices
