"""What a ``quantize`` step may do beside quantizing: look at the layers, and raise bits until enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gracile.errors import DataError
from gracile.records import BitTrail, to_plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from gracile.nn import QuantizedModel
    from gracile.quantize import Scheme, Within

    from ..state import Bench, State

CURVES = "bit_sensitivity.json"
"""The latest sensitivity analysis, in the run's folder."""
LOOKED_AT = 64  # calibration images whose noise is measured


def within(
    state: State,
    bench: Bench,
    calibration: Tensor,
    scheme: Scheme,
    *,
    drop: float,
    judged: int,
    evaluations: int,
) -> Within:
    """Raise bits until at most ``drop`` points are lost on training images that did not calibrate.

    Raises:
        DataError: There are no more training images than those that calibrate.
        BudgetError: 8 bits everywhere lose more.
    """
    from gracile import quantize

    used = len(calibration)
    images, labels = bench.labelled(used + judged)
    if len(images) <= used:
        raise DataError(
            bench.bundle.name,
            wanted="training images beside those that calibrate, to judge accuracy on",
            found=f"{len(images)} in all, {used} of which calibrate",
            do="Lower calibration, or leave at_most_lost out.",
        )
    evaluate = accuracy_on(images[used:], labels[used:])
    return quantize.ptq_within(
        state.model,
        bench.inputs,
        calibration,
        evaluate,
        drop=drop,
        start=scheme,
        evaluations=evaluations,
        cache=bench.out / CURVES,
        on_try=lambda one: bench.tick(f"{one.accuracy:.1f} % at W{one.weight_bits:.1f}", 0, 1),
    )


def accuracy_on(images: Tensor, labels: Tensor) -> Callable[[nn.Module], float]:
    """A function that gives a model's accuracy in percent."""
    import torch

    from gracile.observe import outputs

    def evaluate(model: nn.Module) -> float:
        right = 0
        for x, y in zip(torch.split(images, LOOKED_AT), torch.split(labels, LOOKED_AT), strict=True):
            right += int((outputs(model, (x,))[0].cpu().argmax(1) == y.cpu()).sum())
        return 100 * right / len(labels)

    return evaluate


def looked_at(
    quantized: QuantizedModel, state: State, bench: Bench, images: Tensor, scheme: Scheme, curves: bool
) -> dict[str, Any]:
    """Noise of the layers and, on demand, their sensitivity curves, as plain data for the report."""
    from gracile import quantize

    found: dict[str, Any] = {"noise": to_plain(quantize.noise(quantized, images[:LOOKED_AT]))}
    if curves:
        table = quantize.sensitivity(
            state.model, bench.inputs, images, scheme, cache=bench.out / CURVES,
            on_try=lambda done, of: bench.tick("sensitivity", done, of),
        )  # fmt: skip
        found["bit_curves"] = to_plain(table)
    return found


def told(trail: BitTrail, judged: int) -> str:
    """The trail in a few words, for the summary of a step."""
    kept = trail.kept
    return (
        f"W{kept.weight_bits:.1f}A{kept.activation_bits:.1f} on average, "
        f"{trail.reference - kept.accuracy:.1f} points lost on {judged:,} held-out training images, "
        f"{trail.chosen} of {len(trail.raises)} raises"
    )
