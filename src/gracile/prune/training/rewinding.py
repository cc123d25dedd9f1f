"""Rewinding: what survives pruning gets the values back that it had early in training.

Source: Frankle, Dziugaite, Roy and Carbin, "Stabilizing the lottery ticket hypothesis", 2019, arXiv
1903.01611, section 3 (weights of an early step, not of the very beginning); Renda, Frankle and Carbin,
"Comparing rewinding and fine-tuning in neural network pruning", ICLR 2020, arXiv 2003.02389, section 2, which
also rewinds the learning rate alone: for that, see ``rewound`` of :class:`gracile.tune.TuneConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gracile import surgery
from gracile.errors import BadArgument, StorageError
from gracile.nn import Part
from gracile.records import MaskPlan, PrunePlan, Rewire, atomic_write

from ..masks.masking import apply_masks_


class Early:
    """A training hook that keeps the state of the model after an epoch.

    Args:
        epoch: After which epoch, from 1; 0 for the state before the first step.
        path: A safetensors file to keep it in as well, so that it survives an interruption.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> early = Early(epoch=1)
        >>> early.on_epoch_end(net, torch.optim.SGD(net.parameters()), step=10, epoch=1)
        >>> _ = net.weight.data.add_(1.0)
        >>> (net.weight - early.state["weight"]).item()
        1.0
    """

    def __init__(self, epoch: int, path: Path | None = None) -> None:
        if epoch < 0:
            raise BadArgument("epoch", wanted="at least 0", found=f"{epoch=}")
        self.epoch, self.path = epoch, path
        self._state: dict[str, Tensor] = {}

    @property
    def state(self) -> dict[str, Tensor]:
        """The state dict as it was.

        Raises:
            BadArgument: The epoch has not come yet.
            StorageError: The file is damaged.
        """
        if not self._state and self.path is not None and self.path.is_file():
            self._state = _load(self.path)
        if not self._state:
            raise BadArgument("epoch", wanted=f"training up to epoch {self.epoch}", found="no state kept yet")
        return self._state

    def on_step_begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Keep the state before the first step, where that is asked for."""
        if self.epoch == 0 and step == 0:
            self._keep(model)

    def on_step_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Nothing."""

    def on_epoch_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Keep the state after the epoch asked for."""
        if epoch == self.epoch:
            self._keep(model)

    def _keep(self, model: nn.Module) -> None:
        self._state = {name: t.detach().cpu().clone() for name, t in model.state_dict().items()}
        if self.path is not None:
            _save(self.path, self._state)


def _save(path: Path, state: Mapping[str, Tensor]) -> None:
    whole = {name: tensor.contiguous() for name, tensor in state.items()}  # channels_last is not
    with atomic_write(path) as temporary:
        try:
            safetensors.torch.save_file(whole, temporary)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error


def _load(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise StorageError(
            str(path), wanted="a state that Early kept", found=f"{type(error).__name__}: {error}",
            do="Delete it and train again.",
        ) from error  # fmt: skip
    return state


def rewound(early: Mapping[str, Tensor], *plans: MaskPlan | PrunePlan) -> dict[str, Tensor]:
    """The early state of what survives ``plans``: masked weights are zero, removed channels are gone.

    Args:
        early: State dict of the whole model from early in its training.
        plans: In the order in which they were carried out. Of a plan that hangs parts on the model, such as
            one of a residual trunk, pass what :func:`gracile.surgery.with_parts` makes of it and the pruned
            model, which may hold constants that the plan does not know. These are zero early on.

    Returns:
        A state dict for the pruned model; load it with ``load_state_dict``.

    Raises:
        BadArgument: A plan names what the state does not hold in that shape, or hangs parts where the state
            has some.

    Example:
        >>> import numpy as np
        >>> from gracile.records import ParamMask
        >>> mask = MaskPlan(masks=(ParamMask.of("w", np.array([True, False]), "element"),))
        >>> rewound({"w": torch.tensor([3.0, 4.0])}, mask)["w"].tolist()
        [3.0, 0.0]
    """
    tree = nn.Module()
    for name, tensor in early.items():
        path, _, leaf = name.rpartition(".")
        _at(tree, path).register_buffer(leaf, tensor.detach().clone())
    for plan in plans:
        if isinstance(plan, MaskPlan):
            apply_masks_(tree, plan)
        else:
            for rewire in plan.rewires:
                _check_free(_at(tree, rewire.module), rewire)
            surgery.apply_(tree, replace(plan, attributes=()))
    return dict(tree.state_dict())


def _at(tree: nn.Module, path: str) -> nn.Module:
    """The module at ``path``, made where there is none: it holds tensors and runs nothing."""
    for name in path.split(".") if path else ():
        if name not in tree._modules:
            tree.add_module(name, nn.Module())
        tree = tree.get_submodule(name)
    return tree


def _check_free(module: nn.Module, rewire: Rewire) -> None:
    held = module._modules.get(rewire.kind)
    if held is not None and not isinstance(held, Part):
        raise BadArgument(
            f"{rewire.module}.{rewire.kind}",
            wanted="the state of the model before it got this part",
            found="a state that holds one",
            do="Pass the state of the whole model and all plans in their order.",
        )
