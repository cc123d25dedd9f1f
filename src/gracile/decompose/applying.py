"""Carry a plan out: factors are computed and take the layers' places."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.graph import Trial, difference, stand_in
from gracile.observe import Calibration
from gracile.records import DecomposePlan, Factored, Proof

from .forms import CP, SVD, Form, Spatial, Tucker
from .survey import Seen, survey

BY_NAME: dict[str, Form] = {form.name: form for form in (SVD(), Spatial(), Tucker(), CP())}
"""Forms by the name that plans and recipes use."""
TOLERANCE = 1e-4


def apply(
    model: nn.Module,
    plan: DecomposePlan,
    *,
    inputs: tuple[Tensor, ...] | None = None,
    calibration: Calibration | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return a copy of ``model`` whose planned layers are sequences of smaller ones.

    With data, factors keep the outputs near, and the mean output that is lost goes into the bias: ``b' = b +
    (W - W') m`` with the mean ``m`` of what one output reads.

    Args:
        model: The model that the plan was made for; left as it was.
        plan: From :func:`gracile.decompose.plan`.
        inputs: Example inputs; needed for a plan that was made with data.
        calibration: Unlabelled inputs; likewise.
        seed: Of the positions sampled from large layers.

    Raises:
        BadArgument: The plan belongs to another model, or was made with data and none is given.

    Example:
        >>> from gracile.decompose import Macs, plan
        >>> from gracile.testing import net
        >>> model, inputs = net("plain")
        >>> small = apply(model, plan(model, inputs, budget=Macs(fraction_kept=0.6)))
        >>> small(*inputs).shape == model(*inputs).shape
        True
    """
    if plan.with_data and (calibration is None or inputs is None):
        raise BadArgument(
            "calibration", wanted="the inputs that the plan was made with, and example inputs", found="none"
        )
    small = copy.deepcopy(model)
    layers = {one.layer: _layer(small, one) for one in plan.layers}
    seen: dict[str, Seen] = {}
    if plan.with_data and calibration is not None and inputs is not None:
        seen = survey(small, inputs, calibration, list(layers), seed)
    for one in plan.layers:
        form, layer = BY_NAME[one.form], layers[one.layer]
        known = seen.get(one.layer)
        weight = layer.get_parameter("weight").detach()
        with torch.no_grad():
            factors = form.factor(weight, one.ranks, None if known is None else known.covariance)
            made = form.build(layer, factors)
            if known is not None and known.mean is not None:
                _shift_(made[-1], (weight - form.dense(factors)).flatten(1) @ known.mean.to(weight))
        small = put(small, one.layer, made)
    return small


def apply_structure(model: nn.Module, plan: DecomposePlan) -> nn.Module:
    """Return a copy of the shape that the plan leaves, to load weights into; its numbers mean nothing."""
    small = copy.deepcopy(model)
    for one in plan.layers:
        layer, form = _layer(small, one), BY_NAME[one.form]
        weight = layer.get_parameter("weight").detach()
        made = form.build(layer, [weight.new_zeros(s) for s in form.shapes(weight.shape, one.ranks)])
        if plan.with_data:
            _shift_(made[-1], torch.zeros(weight.shape[0]).to(weight))
        small = put(small, one.layer, made)
    return small


def prove(
    model: nn.Module, small: nn.Module, plan: DecomposePlan, inputs: tuple[Tensor, ...], *, seed: int = 0
) -> Proof:
    """Prove that the smaller layers compute what their factors stand for, where the layers stood.

    The dense weights of the factors are put into a copy of the model; both must give the same outputs on
    random inputs, whatever strides, paddings and uses the layers have.
    """
    trial = Trial(model, inputs, seed=seed)
    whole, factored = trial.held(model), trial.held(small)
    with torch.no_grad():
        for one in plan.layers:
            made, layer, form = factored.get_submodule(one.layer), _layer(whole, one), BY_NAME[one.form]
            assert isinstance(made, nn.Sequential)
            layer.get_parameter("weight").copy_(form.dense(factors_of(form, made)))
            bias = made[-1].bias
            if isinstance(bias, Tensor):
                layer.bias = nn.Parameter(bias.detach().clone())
    wanted = trial.run(whole)
    error = difference(trial.run(factored), wanted)
    return Proof(
        name="layers factored",
        passed=error <= TOLERANCE,
        error=error,
        tolerance=TOLERANCE,
        effect=difference(trial.outputs, wanted),
        detail=f"{len(plan.layers)} layers",
    )


def factors_of(form: Form, made: nn.Sequential) -> tuple[Tensor, ...]:
    """The factors back from the layers that compute them."""
    weights = [part.get_parameter("weight").detach() for part in made]
    if isinstance(form, SVD):
        return weights[1].flatten(1), weights[0]
    if isinstance(form, Spatial):
        return weights[1], weights[0]
    if isinstance(form, Tucker):
        return weights[2].flatten(1), weights[1], weights[0].flatten(1).T
    axes = [w.flatten(1).T for w in weights[1:-1]]
    return weights[-1].flatten(1), weights[0].flatten(1).T, *axes


def _layer(model: nn.Module, one: Factored) -> nn.Module:
    try:
        layer = model.get_submodule(one.layer)
    except AttributeError:
        layer = None
    weight = None if layer is None else layer._parameters.get("weight")
    if layer is None or weight is None or one.form not in BY_NAME:
        raise BadArgument(
            "plan",
            wanted="the plan of this model",
            found=f"{one.form} of {one.layer}, which it has not",
            do="Make the plan again for this model.",
        )
    return layer


def _shift_(last: nn.Module, shift: Tensor) -> None:
    bias = last.bias
    if isinstance(bias, Tensor):
        bias.data += shift
    else:
        last.bias = nn.Parameter(shift.clone())


def put(model: nn.Module, name: str, made: nn.Module) -> nn.Module:
    """Let ``made`` take the place of the module called ``name``, under all of its names.

    Returns:
        The model; ``made`` itself where the whole model, called "", is the layer.
    """
    return stand_in(model, model.get_submodule(name), made)
