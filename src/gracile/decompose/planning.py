"""Ranks: how far each layer is factored, by energy or under a budget of the whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from gracile.errors import BadArgument, BudgetError
from gracile.graph import cost
from gracile.nn.attach import parts_of
from gracile.observe import Calibration
from gracile.records import Bytes, Cost, DecomposePlan, Factored, Macs, Params, Skipped

from .forms import SVD, Form, Spatial, Tucker
from .options import LayerTime, Option, Timer, options_of
from .survey import Seen, survey
from .timing import Milliseconds, milliseconds_of, time_of, timed

FORMS: tuple[Form, ...] = (SVD(), Spatial(), Tucker())


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Factor each layer at the lowest rank that keeps the share ``kept`` of its output's energy, in (0, 1).

    Without data it is the energy of the weight. With fewer rows of data than a layer reads numbers, a rank of
    as many rows keeps all their energy and fits nothing else: such a layer stays dense, with that reason.
    """

    kept: float

    def __post_init__(self) -> None:
        if not 0 < self.kept < 1:
            raise BadArgument("kept", wanted="a share above 0 and below 1", found=f"{self.kept=}")


def plan(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    budget: Energy | Macs | Params | Bytes | Milliseconds,
    forms: Sequence[Form] = FORMS,
    calibration: Calibration | None = None,
    importance: Mapping[str, float] | None = None,
    leave: Sequence[str] = (),
    timer: Timer | None = None,
    seed: int = 0,
) -> DecomposePlan:
    """Choose layers, forms and ranks; the model is left as it was.

    Under a budget the sum over layers of importance times relative squared output error is made small: each
    layer takes the option with the least ``importance * error + price * cost`` for one price, found by
    bisection, and what the budget leaves over goes where it lowers the sum most.

    Args:
        model: Any model that ``torch.export`` captures (its costs are counted on the graph).
        inputs: Example inputs; one image, so that costs are those of one image.
        budget: What may stay, or the energy to keep; :class:`Milliseconds` needs a ``timer``.
        forms: Ways to factor that may be chosen.
        calibration: Unlabelled inputs: errors are then those of outputs. Without, those of weights.
        importance: Weight of a layer's error; default 1. :func:`gracile.decompose.sensitivity` measures it.
        leave: Layers to leave dense.
        timer: Measures a layer against what would stand for it; where that is not faster beyond the noise,
            the layer stays dense and the rest is planned again. Without, multiply-adds decide.
        seed: Of the positions sampled from large layers.

    Raises:
        BudgetError: The budget cannot be met; ``found`` says how near the forms come.
        CaptureError: The model cannot be captured.
        NonFiniteError: Weights or activations hold NaN or infinity.

    Example:
        >>> from gracile.testing import net
        >>> model, inputs = net("plain")
        >>> found = plan(model, inputs, budget=Macs(fraction_kept=0.6))
        >>> found.macs_after <= 0.6 * found.macs_before
        True
    """
    whole = cost(model, inputs)
    data = calibration if calibration is None or isinstance(calibration, Tensor) else list(calibration)
    seen = survey(model, inputs, data, seed=seed)
    skipped = [Skipped(name, why) for name, why in refused(model, seen, forms, leave)]
    if isinstance(budget, Energy):
        told = {skip.where for skip in skipped}
        skipped += [Skipped(name, why) for name, why in _too_few_rows(seen) if name not in told]
    out = {skip.where for skip in skipped}
    options = {name: options_of(one, forms) for name, one in seen.items() if name not in out}
    clock: dict[tuple[str, Option], LayerTime] = {}
    if isinstance(budget, Milliseconds):
        options, slow = timed(options, seen, timer)
        skipped += slow
    while True:
        chosen = _choose(options, budget, importance or {}, whole)
        slower = {} if isinstance(budget, Milliseconds) else _slower(chosen, seen, clock, timer)
        if not slower:
            break
        for name, time in slower.items():
            skipped.append(Skipped(name, time.text))
            options[name] = options[name][:1]
    times: dict[str, tuple[float, ...]] = {
        name: (t.dense, t.factored) for (name, one), t in clock.items() if chosen[name] == one
    }
    if isinstance(budget, Milliseconds):
        times = {name: milliseconds_of(options[name][0], one) for name, one in chosen.items()}
    for name, option in chosen.items():
        if option.form is None and name not in {skip.where for skip in skipped}:
            skipped.append(Skipped(name, "no rank that pays was needed, or none is cheaper than the layer"))
    return _made(chosen, seen, options, times, skipped, whole, budget, with_data=data is not None)


def refused(
    model: nn.Module, seen: Mapping[str, Seen], forms: Sequence[Form], leave: Sequence[str]
) -> list[tuple[str, str]]:
    """Layers that stay dense whatever the budget, with the reason."""
    unknown = [name for name in leave if name not in seen and name not in ("first", "last")]
    if unknown:
        raise BadArgument("leave", wanted="names of layers that run", found=unknown[0])
    names = list(seen)
    left = {*leave, *(names[:1] if "first" in leave else ()), *(names[-1:] if "last" in leave else ())}
    shared = _shared(model)
    found = []
    for name, one in seen.items():
        why = [reason for form in forms if (reason := form.refuses(one.layer)) is not None]
        if name in left:
            found.append((name, "it was to be left alone"))
        elif name in shared:
            found.append((name, "its weight belongs to other modules too"))
        elif one.layer._parameters.get("weight") is None:
            found.append((name, "its weight is computed, not stored"))
        elif parts_of(one.layer):
            found.append((name, "it moves channels or carries a map of constants"))
        elif len(why) == len(forms):
            found.append((name, why[0]))
    return found


def _too_few_rows(seen: Mapping[str, Seen]) -> list[tuple[str, str]]:
    """Layers whose data do not tell their energy, with the reason."""
    return [
        (name, f"{one.rows} rows of calibration data cannot tell the energy of {len(one.mean)} inputs")
        for name, one in seen.items()
        if one.mean is not None and one.rows < len(one.mean)
    ]


def _shared(model: nn.Module) -> set[str]:
    """Layers whose weight another module holds too."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None:
            owners.setdefault(id(weight), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _choose(
    options: Mapping[str, list[Option]],
    budget: Energy | Macs | Params | Bytes | Milliseconds,
    importance: Mapping[str, float],
    whole: Cost,
) -> dict[str, Option]:
    if isinstance(budget, Energy):
        return {name: _by_energy(choices, budget.kept) for name, choices in options.items()}
    measure: Callable[[Option], int] = _nanoseconds
    if isinstance(budget, Milliseconds):
        total = sum(choices[0].nanoseconds for choices in options.values())
        limit = int(budget.fraction_kept * total)
    else:
        measure, limit, total = _limit(budget, whole)
    spare = limit - total  # what the chosen options must save, below zero
    costs = {name: [measure(o) - measure(choices[0]) for o in choices] for name, choices in options.items()}
    least = sum(min(each) for each in costs.values())
    if least > spare:
        raise BudgetError(
            "budget",
            wanted=f"at most {_text(limit, budget)} of {_text(total, budget)} {_unit(budget)}",
            found=f"that {_text(total + least, budget)} is the least that these forms reach",
            do="Ask for less, allow more forms, or prune channels too.",
        )
    errors = {
        name: [importance.get(name, 1.0) * o.error for o in choices] for name, choices in options.items()
    }
    places = _priced(errors, costs, spare)
    return {name: options[name][place] for name, place in places.items()}


def _by_energy(choices: list[Option], kept: float) -> Option:
    good = [o for o in choices[1:] if 1 - o.error >= kept and o.macs <= choices[0].macs]
    return min(good, key=lambda o: (o.macs, o.params), default=choices[0])


def _limit(budget: Macs | Params | Bytes, whole: Cost) -> tuple[Callable[[Option], int], int, int]:
    """What an option costs, what all may cost, and what they cost today."""
    if isinstance(budget, Macs):
        return (lambda o: o.macs), int(budget.fraction_kept * whole.macs), whole.macs
    if isinstance(budget, Params):
        return (lambda o: o.params + o.biases), int(budget.fraction_kept * whole.params), whole.params
    bits = budget.weight_bits
    return (lambda o: -(-o.params * bits // 8) + 4 * o.biases), budget.at_most, budget.of(whole)


def _nanoseconds(option: Option) -> int:
    return option.nanoseconds


def _unit(budget: Macs | Params | Bytes | Milliseconds) -> str:
    names = {Macs: "multiply-adds", Params: "parameters", Bytes: "bytes", Milliseconds: "milliseconds"}
    return names[type(budget)]


def _text(count: int, budget: Macs | Params | Bytes | Milliseconds) -> str:
    return f"{count / 1e6:.4g}" if isinstance(budget, Milliseconds) else f"{count:,}"


def _priced(errors: Mapping[str, list[float]], costs: Mapping[str, list[int]], spare: int) -> dict[str, int]:
    """The place of one option for each layer: least error plus price times cost, then what still fits."""

    def at(price: float) -> dict[str, int]:
        return {name: _best(e, costs[name], price) for name, e in errors.items()}

    def spent(places: Mapping[str, int]) -> int:
        return sum(costs[name][place] for name, place in places.items())

    if spent(at(0.0)) <= spare:
        return at(0.0)
    low, high = 0.0, 1e-12
    while spent(at(high)) > spare and high < 1e12:
        low, high = high, high * 10
    for _ in range(60):
        middle = (low * high) ** 0.5 if low else high / 2
        low, high = (low, middle) if spent(at(middle)) <= spare else (middle, high)
    places = at(high)
    if spent(places) > spare:  # the cheapest of all, when even a boundless price is not enough
        places = {name: min(range(len(c)), key=c.__getitem__) for name, c in costs.items()}
    return _filled(places, errors, costs, spare - spent(places))


def _best(errors: list[float], costs: list[int], price: float) -> int:
    return min(range(len(errors)), key=lambda i: (errors[i] + price * costs[i], costs[i]))


def _filled(
    places: dict[str, int], errors: Mapping[str, list[float]], costs: Mapping[str, list[int]], room: int
) -> dict[str, int]:
    """Spend what is left over where it lowers the error most for what it costs."""
    while True:
        moves = [
            (gain / max(more, 1), name, i, more)
            for name, place in places.items()
            for i in range(len(costs[name]))
            if 0 <= (more := costs[name][i] - costs[name][place]) <= room
            and (gain := errors[name][place] - errors[name][i]) > 0
        ]
        if not moves:
            return places
        _, name, i, more = max(moves)
        places, room = {**places, name: i}, room - more


def _slower(
    chosen: Mapping[str, Option],
    seen: Mapping[str, Seen],
    clock: dict[tuple[str, Option], LayerTime],
    timer: Timer | None,
) -> dict[str, LayerTime]:
    """Layers that are not faster when factored as chosen; ``clock`` holds what was measured, each once."""
    if timer is None:
        return {}
    slower = {}
    for name, option in chosen.items():
        if option.form is None:
            continue
        if (name, option) not in clock:
            clock[name, option] = time_of(seen[name], option, timer)
        if not clock[name, option].faster:
            slower[name] = clock[name, option]
    return slower


def _made(
    chosen: Mapping[str, Option],
    seen: Mapping[str, Seen],
    options: Mapping[str, list[Option]],
    times: Mapping[str, tuple[float, ...]],
    skipped: list[Skipped],
    whole: Cost,
    budget: Energy | Macs | Params | Bytes | Milliseconds,
    *,
    with_data: bool,
) -> DecomposePlan:
    layers = []
    for name, option in chosen.items():
        if option.form is None:
            continue
        dense = options[name][0]
        layers.append(
            Factored(
                layer=name,
                form=option.form.name,
                ranks=option.ranks,
                error=option.error,
                macs_before=dense.macs,
                macs_after=option.macs,
                params_before=dense.params,
                params_after=option.params + option.biases,
                milliseconds=times.get(name, ()),
            )
        )
    made = DecomposePlan(
        layers=tuple(layers),
        skipped=tuple(skipped),
        with_data=with_data,
        budget=str(budget),
        macs_before=whole.macs,
        params_before=whole.params,
    )
    return replace(
        made,
        macs_after=whole.macs - sum(one.macs_before - one.macs_after for one in layers),
        params_after=whole.params - sum(one.params_before - one.params_after for one in layers),
    )
