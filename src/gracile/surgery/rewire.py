"""Hang parts on a model that let the branches of a residual trunk keep different channels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.nn import (
    BorderMap,
    GatherChannels,
    MaskChannels,
    ScatterChannels,
    attach_,
    detach_,
    parts_of,
)
from gracile.records import PrunePlan, Rewire


def rewire_(module: nn.Module, rewire: Rewire) -> None:
    """Hang the part that ``rewire`` describes on ``module``; one that hangs there already is narrowed.

    Example:
        >>> from gracile.records import Rewire
        >>> layer = nn.Conv2d(1, 1, 1)
        >>> rewire_(layer, Rewire(layer="c", module="c", kind="scatter", size=3, keep=(2,)))
        >>> layer(torch.zeros(1, 1, 2, 2)).shape
        torch.Size([1, 3, 2, 2])
    """
    held, like = parts_of(module).get(rewire.kind), _tensor_of(module)
    keep = torch.tensor(rewire.keep, dtype=torch.long, device=like.device)
    if rewire.kind == "border":
        rows = (a + 1 + b for a, b in rewire.ends)
        attach_(module, "border", BorderMap(like.new_zeros(rewire.size, *rows), rewire.ends))
        return
    size = _channels(held) or rewire.size
    if size != rewire.size or not rewire.keep or max(rewire.keep) >= size:
        found = f"{size}, and {rewire.keep[:8]} to keep"
        raise BadArgument(rewire.module, wanted=f"{rewire.size} channels", found=found,
                          do="Make the plan anew for this model.")  # fmt: skip
    if isinstance(held, GatherChannels):
        attach_(module, "gather", GatherChannels(held.index[keep], held.width))
    elif rewire.kind == "gather":
        attach_(module, "gather", GatherChannels(keep, size))
    elif rewire.kind == "scatter":
        index = held.index[keep] if isinstance(held, ScatterChannels) else keep
        width = held.table.numel() if isinstance(held, ScatterChannels) else size
        constant = held.constant if isinstance(held, ScatterChannels) else None
        if constant is None and rewire.constant:
            constant = like.new_zeros(width)
        attach_(module, "scatter", ScatterChannels(index, width, constant))
    else:
        mask = like.new_zeros(size)
        mask[keep] = 1
        attach_(module, "mask", MaskChannels(mask * held.mask if isinstance(held, MaskChannels) else mask))


def _channels(part: nn.Module | None) -> int:
    """Channels at the narrow side of a part, 0 for none."""
    if isinstance(part, GatherChannels):
        return part.index.numel()
    if isinstance(part, ScatterChannels):
        return part.kept
    return part.mask.numel() if isinstance(part, MaskChannels) else 0


def _tensor_of(module: nn.Module) -> Tensor:
    held = [*module._parameters.values(), *module._buffers.values()]
    return next((t for t in held if t is not None and t.is_floating_point()), torch.zeros(()))


def with_parts(plan: PrunePlan, model: nn.Module) -> PrunePlan:
    """The plan with what carrying it out added to ``model``: border maps, and constants of scatters.

    A model of the same shapes can be built from it (:func:`gracile.surgery.apply`), to load a state into.
    """
    found = []
    for r in plan.rewires:
        part = parts_of(model.get_submodule(r.module)).get(r.kind)
        constant = isinstance(part, ScatterChannels) and part.constant is not None
        found.append(replace(r, constant=constant))
    for name, module in model.named_modules():
        part = parts_of(module).get("border")
        if isinstance(part, BorderMap):
            size = int(part.table.shape[0])
            found.append(Rewire(layer=name, module=name, kind="border", size=size, ends=part.ends))
    return replace(plan, rewires=tuple(found))


@torch.no_grad()
def absorb_masks_(model: nn.Module) -> tuple[str, ...]:
    """Multiply masks into the convolutions and batch norms that they hang on, and take them off, in place.

    Returns:
        Names of the modules whose masks have gone.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(2))
        >>> attach_(net[0], "mask", MaskChannels(torch.tensor([1.0, 0.0])))
        >>> absorb_masks_(net), net[0].weight.tolist()
        (('0',), [1.0, 0.0])
    """
    done = []
    for name, module in model.named_modules():
        part = parts_of(module).get("mask")
        weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        plain = isinstance(module, nn.Linear) or (
            isinstance(module, nn.modules.conv._ConvNd) and not module.transposed
        )
        if not isinstance(part, MaskChannels) or weight is None or not (norm or plain):
            continue
        weight.mul_(part.mask.view(-1, *[1] * (weight.dim() - 1)))
        border = parts_of(module).get("border")
        for tensor in (bias, border.table if isinstance(border, BorderMap) else None):
            if tensor is not None:
                tensor.mul_(part.mask.view(-1, *[1] * (tensor.dim() - 1)))
        detach_(module, "mask")
        done.append(name)
    return tuple(done)
