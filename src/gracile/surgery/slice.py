"""Slice the parameters and attributes of the user's own modules.

The user's class survives: names, hooks and training code stay. Everything that follows the parameters follows
the removal too: momenta and other optimizer state of the same shape, gradients, and an averaged (EMA) copy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gracile.errors import BadArgument
from gracile.records import AttributeEdit, ParamSlice, PrunePlan

from .rewire import rewire_

_NORMS = (nn.modules.batchnorm._NormBase,)


def apply(model: nn.Module, plan: PrunePlan) -> nn.Module:
    """Return a narrower copy of ``model``; the argument is left as it was.

    Raises:
        BadArgument: The plan was made for a model of other shapes.

    Example:
        >>> from gracile.records import ParamSlice, PrunePlan
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
        >>> keep = (0, 2)
        >>> plan = PrunePlan(groups=(), slices=(
        ...     ParamSlice(param="0.weight", axis=0, size=4, keep=keep),
        ...     ParamSlice(param="0.bias", axis=0, size=4, keep=keep),
        ...     ParamSlice(param="1.weight", axis=1, size=4, keep=keep)))
        >>> apply(net, plan)[0]
        Linear(in_features=2, out_features=2, bias=True)
    """
    return apply_(copy.deepcopy(model), plan)


def apply_(
    model: nn.Module, plan: PrunePlan, optimizer: Optimizer | None = None, ema: nn.Module | None = None
) -> nn.Module:
    """Narrow ``model`` in place, and with it an optimizer's state and an averaged copy.

    Parameters become new ``nn.Parameter`` objects, which take the old ones' places in the optimizer's groups
    and state, so learning-rate schedulers keep working. Call it between steps, never inside one.

    Args:
        model: The model the plan was made for.
        plan: What stays.
        optimizer: Optimizer over the model's parameters.
        ema: A model of the same shape that follows (``torch.optim.swa_utils.AveragedModel`` or a plain copy).

    Raises:
        BadArgument: The plan was made for a model of other shapes; nothing has been changed.
    """
    owners = _owners(model, plan.slices)
    _check(plan, owners)
    old_shapes = {name: tuple(t.shape) for name, (_, _, t) in owners.items()}
    by_param: dict[str, list[ParamSlice]] = {}
    for s in plan.slices:
        by_param.setdefault(s.param, []).append(s)
    done: dict[int, list[tuple[nn.Module, str]]] = {}
    for name, slices in by_param.items():
        tensor = owners[name][2]
        if id(tensor) not in done:
            narrow = _narrowed(tensor, slices)
            if optimizer is not None and isinstance(tensor, nn.Parameter):
                _follow(optimizer, tensor, narrow, slices)
            done[id(tensor)] = _replace_everywhere(model, tensor, narrow)
    for name, slices in by_param.items():
        for module, leaf in done[id(owners[name][2])]:
            _set_attributes(module, leaf, old_shapes[name], slices)
    for edit in plan.attributes:
        _edit(model, edit)
    for rewire in plan.rewires:
        rewire_(model.get_submodule(rewire.module), rewire)
    if ema is not None:
        inner = ema.module if isinstance(ema, torch.optim.swa_utils.AveragedModel) else ema
        apply_(inner, plan)
    return model


def _owners(model: nn.Module, slices: Iterable[ParamSlice]) -> dict[str, tuple[nn.Module, str, Tensor]]:
    found: dict[str, tuple[nn.Module, str, Tensor]] = {}
    for s in slices:
        path, _, leaf = s.param.rpartition(".")
        try:
            module = model.get_submodule(path)
            tensor = getattr(module, leaf)
        except AttributeError as error:
            raise _misfit(s.param, "a parameter or buffer of the model", "no such name") from error
        found[s.param] = (module, leaf, tensor)
    return found


def _check(plan: PrunePlan, owners: dict[str, tuple[nn.Module, str, Tensor]]) -> None:
    for s in plan.slices:
        shape = tuple(owners[s.param][2].shape)
        if s.axis >= len(shape) or shape[s.axis] != s.size:
            raise _misfit(s.param, f"{s.size} entries along axis {s.axis}", f"shape {shape}")
        if not s.keep or not all(0 <= i < s.size for i in s.keep):
            raise _misfit(s.param, f"kept indices within 0..{s.size - 1}, at least one", f"{s.keep[:8]}")


def _misfit(where: str, wanted: str, found: str) -> BadArgument:
    return BadArgument(where, wanted=wanted, found=found, do="Make the plan anew for this model.")


def _cut(tensor: Tensor, slices: Iterable[ParamSlice]) -> Tensor:
    for s in slices:
        index = torch.tensor(s.keep, dtype=torch.long, device=tensor.device)
        tensor = tensor.index_select(s.axis, index)
    return tensor.contiguous()


def _narrowed(tensor: Tensor, slices: list[ParamSlice]) -> Tensor:
    data = _cut(tensor.detach(), slices).clone()
    if not isinstance(tensor, nn.Parameter):
        return data
    parameter = nn.Parameter(data, requires_grad=tensor.requires_grad)
    if tensor.grad is not None:
        parameter.grad = _cut(tensor.grad, slices)
    return parameter


def _replace_everywhere(model: nn.Module, old: Tensor, new: Tensor) -> list[tuple[nn.Module, str]]:
    """Put ``new`` wherever ``old`` is registered, and say where: a shared parameter stays shared."""
    places = []
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is old:
                    held[name] = new  # type: ignore[assignment]
                    places.append((module, name))
    return places


def _follow(optimizer: Optimizer, old: nn.Parameter, new: Tensor, slices: list[ParamSlice]) -> None:
    assert isinstance(new, nn.Parameter)
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    if old in optimizer.state:
        state = optimizer.state.pop(old)
        optimizer.state[new] = {
            key: _cut(held, slices) if isinstance(held, Tensor) and held.shape == old.shape else held
            for key, held in state.items()
        }


def _set_attributes(module: nn.Module, leaf: str, old: tuple[int, ...], slices: list[ParamSlice]) -> None:
    """Bring the attributes of PyTorch's own layers in line with their new shapes."""
    if leaf == "weight" and isinstance(module, nn.modules.conv._ConvNd):
        _set_conv(module, old, {s.axis: s for s in slices})
    elif leaf == "weight" and isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NORMS):
        module.num_features = int(getattr(module, leaf).shape[0])
    elif isinstance(module, nn.GroupNorm) and leaf == "weight":
        whole = old[0] // module.num_groups
        if module.num_groups > 1:
            module.num_groups = module.weight.shape[0] // whole
        module.num_channels = int(module.weight.shape[0])
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and leaf == "weight":
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = int(module.weight.shape[0])


def _set_conv(conv: nn.modules.conv._ConvNd, old: tuple[int, ...], by_axis: dict[int, ParamSlice]) -> None:
    """Channels and groups from the new weight; the kept rows tell whether whole groups went."""
    groups, first, second = conv.groups, int(conv.weight.shape[0]), int(conv.weight.shape[1])
    if groups > 1 and 0 in by_axis:
        per = old[0] // groups
        kept = torch.zeros(old[0], dtype=torch.bool)
        kept[list(by_axis[0].keep)] = True
        rows = kept.view(groups, per)
        if bool((rows.all(1) | ~rows.any(1)).all()):
            groups = int(rows.any(1).sum())
    conv.groups = groups
    if conv.transposed:
        conv.in_channels, conv.out_channels = first, second * groups
    else:
        conv.in_channels, conv.out_channels = second * groups, first


def _edit(model: nn.Module, edit: AttributeEdit) -> None:
    module = model.get_submodule(edit.module)
    held = getattr(module, edit.attribute)
    new = list(edit.new) if isinstance(held, list) and isinstance(edit.new, tuple) else edit.new
    setattr(module, edit.attribute, new)
