"""Rewinding: what survives pruning gets the values back that it had early in training.

Source: Frankle, Dziugaite, Roy and Carbin, "Stabilizing the lottery ticket hypothesis", 2019, arXiv
1903.01611, section 3 (weights of an early step, not of the very beginning); Renda, Frankle and Carbin,
"Comparing rewinding and fine-tuning in neural network pruning", ICLR 2020, arXiv 2003.02389, section 2, which
also rewinds the learning rate alone: for that, see ``rewound`` of :class:`gracile.tune.TuneConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.records import MaskPlan, PrunePlan, atomic_write


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
        """
        if not self._state and self.path is not None and self.path.is_file():
            self._state = safetensors.torch.load_file(self.path)
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
            with atomic_write(self.path) as temporary:
                safetensors.torch.save_file(self._state, temporary)


def rewound(early: Mapping[str, Tensor], *plans: MaskPlan | PrunePlan) -> dict[str, Tensor]:
    """The early state of what survives ``plans``: masked weights are zero, removed channels are gone.

    Args:
        early: State dict of the whole model from early in its training.
        plans: In the order in which they were carried out.

    Returns:
        A state dict for the pruned model; load it with ``load_state_dict``.

    Raises:
        BadArgument: A plan names what the state does not hold in that shape.

    Example:
        >>> import numpy as np
        >>> from gracile.records import ParamMask
        >>> mask = MaskPlan(masks=(ParamMask.of("w", np.array([True, False]), "element"),))
        >>> rewound({"w": torch.tensor([3.0, 4.0])}, mask)["w"].tolist()
        [3.0, 0.0]
    """
    state = {name: tensor.detach().clone() for name, tensor in early.items()}
    for plan in plans:
        if isinstance(plan, MaskPlan):
            for mask in plan.masks:
                tensor = state.get(mask.param)
                if tensor is None or tuple(tensor.shape) != mask.shape:
                    raise _misfit(mask.param, f"shape {mask.shape}", tensor)
                drop = torch.from_numpy(~mask.keep).to(tensor.device)
                state[mask.param] = tensor.masked_fill(drop, 0.0)
        else:
            for s in plan.slices:
                tensor = state.get(s.param)
                if tensor is None or s.axis >= tensor.ndim or tensor.shape[s.axis] != s.size:
                    raise _misfit(s.param, f"{s.size} entries along axis {s.axis}", tensor)
                index = torch.tensor(s.keep, device=tensor.device)
                state[s.param] = tensor.index_select(s.axis, index).contiguous()
    return state


def _misfit(param: str, wanted: str, tensor: Tensor | None) -> BadArgument:
    found = "no such name" if tensor is None else f"shape {tuple(tensor.shape)}"
    do = "Pass the state of the whole model and all plans in their order."
    return BadArgument(param, wanted=wanted, found=found, do=do)
