"""A held-out part of the training data, so that nothing is ever chosen on test data."""

from __future__ import annotations

import torch

from gracile.errors import BadArgument
from gracile.observe import Batches


def split(data: Batches, share: float, *, seed: int = 0) -> tuple[Batches, Batches]:
    """Split ``data`` at random into a part to train on and a part held out.

    Args:
        data: At least two examples.
        share: Share that is held out, between 0 and 1; at least one example lands on each side.
        seed: Same seed, same split.

    Returns:
        The part to train on and the held-out part; together each example once.

    Raises:
        BadArgument: ``share`` lies outside its range or there are fewer than two examples.

    Example:
        >>> from gracile.observe import DatasetBatches
        >>> data = DatasetBatches([(torch.zeros(1), 0)] * 10)
        >>> [len(part) for part in split(data, 0.2)]
        [8, 2]
    """
    count = len(data)
    if not 0 < share < 1:
        raise BadArgument("share", wanted="between 0 and 1", found=f"{share=}")
    if count < 2:
        raise BadArgument("data", wanted="at least 2 examples", found=str(count), do="Set holdout to 0.")
    held = min(max(round(count * share), 1), count - 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return data.subset(order[held:].sort().values), data.subset(order[:held].sort().values)
