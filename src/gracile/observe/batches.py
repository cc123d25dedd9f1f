"""Labelled examples that hand out whole, prepared batches.

A Python data loader that fetches one image at a time is slower than a small network on two cores, so what
trains, calibrates and measures asks for batches. :class:`Batches` is the interface;
:class:`DatasetBatches` gives it to any torch dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gracile.errors import BadArgument

Augmentation = Callable[[Tensor, torch.Generator | None], Tensor]
"""Prepared images ``(batch, ...)`` and a generator to images of the same shape."""


@runtime_checkable
class Batches(Protocol):
    """A map-style dataset of ``(image, label)`` that also gives out whole batches."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        """One prepared (normalised, not augmented) image and its label."""
        ...

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Go once through the examples.

        Args:
            batch_size: Examples a batch, at least 1; the last batch may be smaller.
            shuffle: A new random order, drawn from ``generator``; otherwise the stored order.
            generator: Source of the order and of the augmentation, so that one seed repeats an epoch.
            augment: Apply the data's own random augmentation (for training only).
            drop_last: Leave out a last batch that is smaller than ``batch_size``.

        Yields:
            Images ``(batch, ...)`` float32, prepared for the model, and labels ``(batch,)`` int64.
        """
        ...

    def subset(self, indices: Sequence[int] | Tensor) -> Batches:
        """The examples at ``indices``, in that order."""
        ...


def batch_order(
    count: int,
    batch_size: int,
    *,
    shuffle: bool = False,
    generator: torch.Generator | None = None,
    drop_last: bool = False,
) -> Iterator[Tensor]:
    """Cut ``0..count-1``, in order or shuffled, into index tensors of ``batch_size``.

    Raises:
        BadArgument: ``batch_size`` is below 1.

    Example:
        >>> [indices.tolist() for indices in batch_order(5, 2)]
        [[0, 1], [2, 3], [4]]
        >>> [indices.tolist() for indices in batch_order(5, 2, drop_last=True)]
        [[0, 1], [2, 3]]
    """
    if batch_size < 1:
        raise BadArgument("batch_size", wanted="at least 1", found=f"{batch_size=}")
    order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
    whole = count - count % batch_size if drop_last else count
    for start in range(0, whole, batch_size):
        yield order[start : start + batch_size]


def holdout_indices(data: Batches, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw a held-out part: indices of the rest and of the part, both ascending.

    Data whose examples belong together say so by an attribute ``groups``, ``(n,)`` integers: examples of one
    group land on one side, and groups are drawn until the share is reached. Without it every example is on
    its own.

    Args:
        data: At least two examples, of two groups at least where there are groups.
        share: Between 0 and 1; both sides get at least one example.
        seed: Same seed, same parts.

    Raises:
        BadArgument: The share is out of range, or there is nothing to split.

    Example:
        >>> [part.tolist() for part in holdout_indices(DatasetBatches([(torch.zeros(1), 0)] * 5), 0.4)]
        [[1, 2, 3], [0, 4]]
    """
    groups = getattr(data, "groups", None)
    units = len(data) if groups is None else len(torch.unique(groups))
    if not 0 < share < 1 or units < 2:
        raise BadArgument(
            "share",
            wanted="a share between 0 and 1 of at least 2 examples that may be parted",
            found=f"{share=} of {units}",
        )
    wanted = min(max(round(share * len(data)), 1), len(data) - 1)
    order = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
    if groups is None:
        return order[wanted:].sort().values, order[:wanted].sort().values
    _, member, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    before = counts[order].cumsum(0) - counts[order]
    drawn = order[:-1][(before < wanted)[:-1]]
    held = torch.isin(member, drawn)
    return (~held).nonzero().flatten(), held.nonzero().flatten()


class DatasetBatches:
    """Any map-style torch dataset of ``(tensor, int)`` as :class:`Batches`.

    Args:
        dataset: Gives prepared images, all of one shape.
        augmentation: What ``augment=True`` does to a batch; without it, asking for it is an error, since a
            dataset's own transforms cannot be switched from outside.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> pairs = [(torch.full((1, 2, 2), float(i)), i % 2) for i in range(5)]
        >>> images, labels = next(DatasetBatches(pairs).batches(4))
        >>> images.shape, labels.tolist()
        (torch.Size([4, 1, 2, 2]), [0, 1, 0, 1])
    """

    def __init__(
        self, dataset: Dataset[Any] | Sequence[tuple[Tensor, int]], augmentation: Augmentation | None = None
    ) -> None:
        self.dataset = cast("Sequence[tuple[Tensor, int]]", dataset)
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        image, label = self.dataset[index]
        return image, int(label)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Fetch and stack one batch at a time; see :meth:`Batches.batches`.

        Raises:
            BadArgument: ``augment`` is asked for and there is no augmentation.
        """
        if augment and self.augmentation is None:
            raise BadArgument(
                "augment",
                wanted="a dataset with a batch augmentation",
                found=f"a plain {type(self.dataset).__name__}",
                do="Pass augmentation= to DatasetBatches, or augment inside the dataset and leave this off.",
            )
        order = batch_order(len(self), batch_size, shuffle=shuffle, generator=generator, drop_last=drop_last)
        for indices in order:
            pairs = [self[int(i)] for i in indices]
            images = torch.stack([image for image, _ in pairs])
            if augment and self.augmentation is not None:
                images = self.augmentation(images, generator)
            yield images, torch.tensor([label for _, label in pairs])

    def subset(self, indices: Sequence[int] | Tensor) -> DatasetBatches:
        """The examples at ``indices``, in that order."""
        chosen: Dataset[Any] = torch.utils.data.Subset(
            cast("Dataset[Any]", self.dataset), [int(i) for i in indices]
        )
        return DatasetBatches(chosen, self.augmentation)


def as_batches(data: Batches | Dataset[Any] | Sequence[tuple[Tensor, int]]) -> Batches:
    """``data`` itself when it gives batches, else wrapped so that it does.

    Example:
        >>> len(as_batches([(torch.zeros(1), 0)]))
        1
    """
    return data if isinstance(data, Batches) else DatasetBatches(data)
