"""Ranks under a budget of measured time: a few options of each layer are timed, and one of each is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from gracile.errors import BadArgument
from gracile.records import Skipped, check_kept

from .options import LayerTime, Option, Timer
from .survey import Seen

TIMED = 4
"""Ways to factor each layer that are timed at most."""


@dataclass(frozen=True, kw_only=True)
class Milliseconds:
    """Keep at most the share ``fraction_kept``, in ``(0, 1]``, of the time of layers that can be factored.

    Each is timed alone, dense and at :data:`TIMED` points from the least error to the least multiply-adds;
    ranks are chosen among those that are faster than the layer.
    """

    fraction_kept: float

    def __post_init__(self) -> None:
        check_kept(self.fraction_kept)


def timed(
    options: Mapping[str, list[Option]], seen: Mapping[str, Seen], timer: Timer | None
) -> tuple[dict[str, list[Option]], list[Skipped]]:
    """The options that are measured to be faster, with their times, and layers that have none.

    Times are scaled by the layer's own when it was measured first: what is compared is the ratio of two
    modules that were timed in turns.

    Raises:
        BadArgument: There is no timer.
    """
    if timer is None:
        raise BadArgument("timer", wanted="one, for a budget in milliseconds", found="none")
    found: dict[str, list[Option]] = {}
    skipped = []
    for name, choices in options.items():
        one, base, faster = seen[name], 0.0, []
        slowest = ""
        for option in spread(choices[1:]):
            time = time_of(one, option, timer)
            base = base or time.dense
            if time.faster:
                scaled = base * time.factored / time.dense
                faster.append(replace(option, nanoseconds=_nanoseconds(scaled, one)))
            else:
                slowest = slowest or time.text
        found[name] = [replace(choices[0], nanoseconds=_nanoseconds(base, one)), *faster]
        if not faster and slowest:
            skipped.append(Skipped(name, slowest))
    return found, skipped


def spread(options: list[Option], most: int = TIMED) -> list[Option]:
    """Up to ``most`` options that no other beats in both error and multiply-adds, evenly spread.

    Example:
        >>> def way(error, macs): return Option(form=None, ranks=(), error=error, macs=macs, params=1)
        >>> ways = [way(0.9, 1), way(0.5, 2), way(0.6, 3), way(0.1, 4), way(0.0, 5)]
        >>> [o.macs for o in spread(ways, most=2)]
        [1, 5]
    """
    best: list[Option] = []
    for option in sorted(options, key=lambda o: (o.macs, o.error)):
        if not best or option.error < best[-1].error:
            best.append(option)
    if len(best) <= most:
        return best
    return [best[round(i * (len(best) - 1) / (most - 1))] for i in range(most)]


def time_of(one: Seen, option: Option, timer: Timer) -> LayerTime:
    """Times of one call of the layer and of what stands for it."""
    assert option.form is not None
    weight = one.layer.get_parameter("weight").detach()
    small = option.form.build(one.layer, option.form.factor(weight, option.ranks))
    read = one.space.read
    shape = (*read, weight.shape[1]) if isinstance(one.layer, nn.Linear) else (weight.shape[1], *read)
    return timer(one.name, one.layer, small, shape)


def milliseconds_of(dense: Option, option: Option) -> tuple[float, ...]:
    """Both times as a plan records them; nothing for a layer that stays."""
    return () if option.form is None else (dense.nanoseconds / 1e6, option.nanoseconds / 1e6)


def _nanoseconds(milliseconds: float, one: Seen) -> int:
    return round(1e6 * milliseconds * one.calls)
