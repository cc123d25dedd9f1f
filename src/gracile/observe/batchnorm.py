"""Batch-norm statistics estimated again, as plain averages over calibration batches.

Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, arXiv 2105.07576, section 3 ("PreciseBN"):
statistics are averaged over many batches with fixed weights instead of by an exponential moving average.
Where we differ: the variance of all batches together is used (variance within batches plus variance of their
means).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, NonFiniteError
from gracile.graph import evaluating

from .calibration import Calibration, batches_of

BatchNorm = nn.modules.batchnorm._BatchNorm
Moments = tuple[Tensor, Tensor, int]
"""Count-weighted sum of means, of second moments, and the count."""


def reestimate_(
    model: nn.Module, batches: Calibration, *, only: Collection[str] | None = None
) -> tuple[str, ...]:
    """Set the running statistics of the model's batch norms to those of ``batches``, in place.

    All normalise by the statistics of the batch at hand meanwhile, so that each layer sees inputs like those
    that it will see afterwards; all other parts run in evaluation mode. Modes and momenta are restored on
    every exit; on an error the statistics too.

    Args:
        model: The model; nothing but the statistics changes.
        batches: Inputs of the model; larger batches give better estimates. One tensor is cut into batches of
            64; see :func:`gracile.observe.batches_of`.
        only: Dotted names of the norms to estimate; default, all that track statistics.

    Returns:
        Names of the norms whose statistics were set: those that ran.

    Raises:
        BadArgument: There are no inputs, or a norm has one value a channel in one of the batches.
        NonFiniteError: A norm saw NaN or infinity.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(1))
        >>> reestimate_(net, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
        ('0',)
        >>> net[0].running_mean.item(), round(net[0].running_var.item(), 3)  # 20 / 3, unbiased as in training
        (4.0, 6.667)
    """
    norms = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, BatchNorm) and m.running_mean is not None and (only is None or name in only)
    }
    if not norms:
        return ()
    seen = _collect(model, norms, batches)
    for name, (total, square, count) in seen.items():
        mean = total / count
        var = (square / count - mean.square()).clamp_min(0) * (count / max(count - 1, 1))
        if not bool(mean.isfinite().all() and var.isfinite().all()):
            raise NonFiniteError(name, wanted="finite inputs of this batch norm", found="NaN or infinity",
                                 do="Check the weights and the calibration data.")  # fmt: skip
        seen[name] = (mean, var, count)
    for name, (mean, var, _) in seen.items():
        norm = norms[name]
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
    return tuple(seen)


@torch.no_grad()
def _collect(model: nn.Module, norms: dict[str, BatchNorm], batches: Calibration) -> dict[str, Moments]:
    seen: dict[str, Moments] = {}
    names = {m: name for name, m in norms.items()}

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        name = names[module]  # type: ignore[index]
        x = args[0].detach().double()
        axes = [d for d in range(x.dim()) if d != 1]
        count = x.numel() // x.shape[1]
        if count < 2:
            raise BadArgument("batches", wanted=f"more than one value a channel at {name}, to normalise by",
                              found=f"its input of shape {tuple(x.shape)}",
                              do="Leave a last batch of one row out (drop_last=True).")  # fmt: skip
        total, square, before = seen.get(name, (torch.zeros(()), torch.zeros(()), 0))
        seen[name] = (total + x.sum(axes), square + x.square().sum(axes), before + count)

    handles = [m.register_forward_pre_hook(note) for m in norms.values()]
    try:
        with evaluating(model), _by_batch(norms.values()):
            for batch in batches_of(batches, model, argument="batches"):
                model(*batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextmanager
def _by_batch(norms: Iterable[BatchNorm]) -> Iterator[None]:
    """Normalise by the batch's own statistics; keep the running ones, momenta and counters as they are."""
    norms = list(norms)
    held = [(m, m.training, m.track_running_stats, m.running_mean, m.running_var) for m in norms]
    try:
        for m in norms:
            # Without running statistics PyTorch normalises by the batch and updates nothing.
            m.training, m.running_mean, m.running_var = True, None, None
            m.track_running_stats = False
        yield
    finally:
        for m, training, track, mean, var in held:
            m.training, m.track_running_stats = training, track
            m.running_mean, m.running_var = mean, var
