"""The same architecture with new random weights: what every pruned network has to beat.

Source: Liu, Sun, Zhou, Huang and Darrell, "Rethinking the value of network pruning", ICLR 2019, arXiv
1810.05270, section 3: the pruned architecture trained from scratch. A network pruned by equal shares of every
group (:class:`~gracile.prune.L1` under a budget of multiply-adds) is the uniformly narrowed one of equal
cost.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from gracile.errors import UnsupportedOperation


def fresh(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy of ``model`` with all parameters and statistics as its modules initialise them.

    Each module's own ``reset_parameters`` is called, so an initialisation that the model's constructor adds
    on top is not repeated.

    Args:
        model: Left as it was.
        seed: Of the random weights.

    Raises:
        UnsupportedOperation: A module holds parameters and cannot reset them.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> torch.equal(fresh(net, seed=1).weight, fresh(net, seed=1).weight)
        True
        >>> torch.equal(fresh(net).weight, net.weight)
        False
    """
    new = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, module in new.named_modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                raise UnsupportedOperation(
                    name or type(module).__name__,
                    wanted="a method reset_parameters that gives new random weights",
                    found=f"{type(module).__name__}, which has parameters and no such method",
                    do="Add the method, or build the model anew and narrow it with surgery.apply.",
                )
    return new
