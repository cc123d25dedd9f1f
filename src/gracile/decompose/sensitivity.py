"""How much each layer's error matters: it is factored alone, and the outputs are compared.

Source: the idea of measuring layers one at a time under a common budget is that of Kim, Khan and Kyung,
"Efficient neural network compression", CVPR 2019, arXiv 1811.12781, section 3.2, which takes accuracy;
here it is the divergence of the outputs, which needs no labels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gracile.observe import Calibration, batches_of, divergence, outputs

from .applying import put
from .forms import Form
from .options import Option, options_of
from .planning import FORMS, refused
from .survey import survey

AT = 0.5  # share of a layer's multiply-adds at which it is tried
LEAST_ERROR = 1e-3  # below it the outputs move by rounding errors alone


def sensitivity(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    calibration: Calibration,
    *,
    forms: Sequence[Form] = FORMS,
    leave: Sequence[str] = (),
    images: int = 128,
    seed: int = 0,
) -> dict[str, float]:
    """Divergence of the outputs for a unit of each layer's relative error, the other layers whole.

    Every layer is replaced alone by the option with the least error among those that keep at most half of
    its multiply-adds and are not exact. With ``D`` the divergence in nats and ``e`` that option's error the
    importance is ``D / e``; so ``importance * error`` estimates what a layer costs the outputs at any rank.

    Args:
        model: The model; left as it was.
        inputs: Example inputs, one image.
        calibration: Unlabelled inputs.
        forms: Ways to factor.
        leave: Layers that are not tried.
        images: Inputs whose outputs are compared, the first of the calibration.
        seed: Of the positions sampled from large layers.

    Returns:
        Importance by layer name, for :func:`gracile.decompose.plan`; layers that cannot be factored are left
        out.

    Example:
        >>> from gracile.testing import net
        >>> model, inputs = net("plain")
        >>> all(value >= 0 for value in sensitivity(model, inputs, torch.randn(16, 3, 8, 8)).values())
        True
    """
    batches = list(batches_of(calibration, takes=len(inputs)))
    first = tuple(torch.cat(column)[:images] for column in zip(*batches, strict=True))
    wanted = outputs(model, first)
    seen = survey(model, inputs, batches, seed=seed)
    out = {name for name, _ in refused(model, seen, forms, leave)}
    found = {}
    for name, one in seen.items():
        if name in out:
            continue
        option = _tried(options_of(one, forms))
        if option is None:
            continue
        assert option.form is not None
        weight = one.layer.get_parameter("weight").detach()
        made = option.form.build(one.layer, option.form.factor(weight, option.ranks))
        small = put(copy.deepcopy(model), name, made)
        moved = max(divergence(wanted, outputs(small, first)), 0.0)
        found[name] = moved / max(option.error, 1e-9)
    return found


def _tried(options: Sequence[Option]) -> Option | None:
    dense, *others = options
    fit = [o for o in others if o.macs <= AT * dense.macs] or list(others)
    telling = [o for o in fit if o.error >= LEAST_ERROR] or [o for o in others if o.error >= LEAST_ERROR]
    if telling:
        return min(telling, key=lambda o: o.error)
    return max(fit, key=lambda o: o.error, default=None)
