"""Carry a joint plan out: channels go, layers are fitted one after the other, some of them within a low rank.

Source: for ranks with data Zhang, Zou, He and Sun, "Accelerating very deep convolutional networks for
classification and detection", TPAMI 2016, arXiv 1505.06798, section 3.3: a layer's factors are fitted to what
the original network gives from what the compressed network reads. A least-squares fit followed by the
principal components of its outputs solves that exactly (reduced-rank regression). Where we differ: the
channels that pruning removed are compensated in the same pass, and errors are weighed behind batch norms.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from gracile import decompose, prune, surgery
from gracile.decompose.applying import put
from gracile.observe import Calibration
from gracile.records import Factored, JointPlan, Proof

SMALLEST_WEIGHT = 1e-6  # of the largest: what the error of an output weighs at least


def apply(
    model: nn.Module,
    plan: JointPlan,
    *,
    inputs: tuple[Tensor, ...],
    calibration: Calibration,
    seed: int = 0,
) -> nn.Module:
    """Return a copy of ``model`` that is pruned and factored as planned.

    Every layer behind a change is refitted to what ``model`` gives. The fit ``W`` of a layer that is to be
    factored is replaced by its factors, with ``tr((W - W') C (W - W')')`` small for the covariance ``C`` of
    what the layer now reads, before the next layer is fitted.

    Args:
        model: The model that the plan was made for; left as it was.
        plan: From :func:`gracile.joint.plan`.
        inputs: Example inputs, as for the plan.
        calibration: Unlabelled inputs, a few hundred.
        seed: Of random inputs and sampled positions.

    Raises:
        BadArgument: The plan belongs to another model, or there are no inputs.
        NonFiniteError: Activations hold NaN or infinity.

    Example:
        >>> from gracile.joint import plan
        >>> from gracile.testing import net
        >>> model, inputs = net("plain")
        >>> images = torch.randn(48, 3, 8, 8)
        >>> found = plan(model, inputs, budget=prune.Macs(fraction_kept=0.6), calibration=images,
        ...              shares=(0.5,))
        >>> small = apply(model, found, inputs=inputs, calibration=images)
        >>> all(proof.passed for proof in prove(model, small, found, inputs))
        True
    """
    made: dict[str, tuple[Tensor, ...]] = {}
    small = prune.apply(
        model,
        plan.prune,
        inputs=inputs,
        calibration=calibration,
        project={one.layer: _Within(one, made) for one in plan.decompose.layers},
        seed=seed,
    )
    left = tuple(one for one in plan.decompose.layers if one.layer not in made)  # none could be fitted
    for one in plan.decompose.layers:
        if one.layer in made:
            small = put(small, one.layer, _built(small.get_submodule(one.layer), one, made[one.layer]))
    if not left:
        return small
    rest = replace(plan.decompose, layers=left)
    data = calibration if isinstance(calibration, Tensor) else list(calibration)
    return decompose.apply(small, rest, inputs=inputs, calibration=data, seed=seed)


def prove(
    model: nn.Module, small: nn.Module, plan: JointPlan, inputs: tuple[Tensor, ...], *, seed: int = 0
) -> tuple[Proof, ...]:
    """Prove on the model itself that channels were removed and layers factored as planned.

    Args:
        model: The model that the plan was made for.
        small: From :func:`apply`.
        plan: The plan.
        inputs: Example inputs.
        seed: Of random inputs.

    Returns:
        What :func:`gracile.surgery.verify` proves of the pruning and :func:`gracile.decompose.prove` of the
        factors; nothing for what the plan leaves out.
    """
    proofs = surgery.verify(model, inputs, plan.prune, seed=seed) if plan.prune.slices else ()
    if not plan.decompose.layers:
        return proofs
    narrow, whole = surgery.apply(model, plan.prune), copy.deepcopy(small)
    for one in plan.decompose.layers:
        whole = put(whole, one.layer, narrow.get_submodule(one.layer))
    return (*proofs, decompose.prove(whole, small, plan.decompose, inputs, seed=seed))


class _Within:
    """Factors of a fitted weight, kept by the layer's name, and the weight that they stand for."""

    def __init__(self, one: Factored, made: dict[str, tuple[Tensor, ...]]) -> None:
        self.one, self.made = one, made

    def __call__(self, weight: Tensor, moments: Tensor, weighs: Tensor) -> Tensor:
        form = decompose.BY_NAME[self.one.form]
        scale = weighs.clamp(min=SMALLEST_WEIGHT * float(weighs.max())).sqrt()
        view = scale.view(-1, *[1] * (weight.dim() - 1))
        outs, *others = form.factor(weight * view, self.one.ranks, moments)
        factors = (outs / scale.view(-1, *[1] * (outs.dim() - 1)), *others)  # outputs come first in all forms
        self.made[self.one.layer] = factors
        return form.dense(factors)


def _built(layer: nn.Module, one: Factored, factors: tuple[Tensor, ...]) -> nn.Sequential:
    """The layers that compute the factors; the last has a bias, as in every decomposition with data."""
    form = decompose.BY_NAME[one.form]
    with torch.no_grad():
        parts = form.build(layer, factors)
    if not isinstance(parts[-1].bias, Tensor):
        weight = layer.get_parameter("weight")
        parts[-1].bias = nn.Parameter(weight.new_zeros(weight.shape[0]))
    return parts
