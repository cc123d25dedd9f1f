"""A held-out part of the training data, so that nothing is ever chosen on test data."""

from __future__ import annotations

from gracile.errors import BadArgument
from gracile.observe import Batches, holdout_indices


def split(data: Batches, share: float, *, seed: int = 0) -> tuple[Batches, Batches]:
    """Split ``data`` at random into a part to train on and a part held out.

    Examples that belong together (windows of one clip) stay together; see
    :func:`gracile.observe.holdout_indices`.

    Args:
        data: At least two examples.
        share: Share that is held out, between 0 and 1; at least one example lands on each side.
        seed: Same seed, same split.

    Returns:
        The part to train on and the held-out part; together each example once.

    Raises:
        BadArgument: ``share`` lies outside its range or there are fewer than two examples.

    Example:
        >>> import torch
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
    rest, held = holdout_indices(data, share, seed)
    return data.subset(rest), data.subset(held)
