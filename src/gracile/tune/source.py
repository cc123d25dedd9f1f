"""What to train on, whatever form it came in: batches an epoch, and the part held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gracile.errors import BadArgument
from gracile.observe import Batches, as_batches

from .config import TuneConfig
from .split import split

Batch = tuple[Tensor, Tensor]
Data = Batches | Dataset[Any] | Iterable[Batch]


@dataclass(frozen=True, kw_only=True)
class Source:
    """``epoch(generator)`` gives this process's training batches, ``steps`` of them.

    ``held()`` gives the held-out batches; ``held_size`` counts their examples, 0 when nothing is held out.
    """

    epoch: Callable[[torch.Generator], Iterator[Batch]]
    steps: int
    held: Callable[[], Iterable[Batch]]
    held_size: int


def make_source(
    data: Data, config: TuneConfig, holdout: Data | None, *, rank: int = 0, processes: int = 1
) -> Source:
    """Bring ``data`` into one form.

    Args:
        data: Examples (:class:`gracile.observe.Batches` or any map-style dataset), or an iterable of batches
            with a length that can be gone through again, such as a list or a ``DataLoader``.
        config: Batch size, augmentation, share held out and seed.
        holdout: Held-out data in any of those forms; None splits off ``config.holdout`` of the examples.
        rank: Which of the ``processes`` this is.
        processes: How many share each epoch.

    Raises:
        BadArgument: The data are empty, have no length, or early stopping has nothing to go by.
    """
    if isinstance(data, Batches | Dataset):
        train = as_batches(data)
        if holdout is None and config.holdout > 0:
            train, holdout = split(train, config.holdout, seed=config.seed)
        epoch, steps = _examples(train, config, rank, processes)
    else:
        epoch, steps = _ready(data, rank, processes)
    if steps < 1:
        raise BadArgument("train_data", wanted="at least one batch for each process", found="none")
    held, held_size = _held(holdout, config)
    if config.patience is not None and not held_size:
        raise BadArgument(
            "patience",
            wanted="a held-out part to judge by",
            found="none: holdout is 0, or the data are ready batches",
            do="Pass holdout= to fit, or set patience to None.",
        )
    return Source(epoch=epoch, steps=steps, held=held, held_size=held_size)


def _examples(
    train: Batches, config: TuneConfig, rank: int, processes: int
) -> tuple[Callable[[torch.Generator], Iterator[Batch]], int]:
    count = len(train) // processes
    whole = count >= config.batch_size  # a last batch of one would upset batch normalisation

    def epoch(generator: torch.Generator) -> Iterator[Batch]:
        mine = train
        if processes > 1:
            order = torch.randperm(len(train), generator=generator)
            mine = train.subset(order[rank : count * processes : processes])
        return mine.batches(
            config.batch_size, shuffle=True, generator=generator, augment=config.augment, drop_last=whole
        )

    return epoch, count // config.batch_size if whole else min(count, 1)


def _ready(
    data: Iterable[Batch], rank: int, processes: int
) -> tuple[Callable[[torch.Generator], Iterator[Batch]], int]:
    if not isinstance(data, Sized):
        raise BadArgument(
            "train_data",
            wanted="batches with a length, that can be gone through once an epoch",
            found=type(data).__name__,
            do="Pass a list of batches, a DataLoader or a dataset.",
        )
    steps = len(data) // processes

    def epoch(generator: torch.Generator) -> Iterator[Batch]:
        for index, batch in enumerate(data):
            if index % processes == rank and index < steps * processes:
                yield batch

    return epoch, steps


def _held(holdout: Data | None, config: TuneConfig) -> tuple[Callable[[], Iterable[Batch]], int]:
    if holdout is None:
        return (lambda: ()), 0
    if isinstance(holdout, Batches | Dataset):
        examples = as_batches(holdout)
        return (lambda: examples.batches(config.batch_size)), len(examples)
    batches = list(holdout)
    return (lambda: batches), sum(len(labels) for _, labels in batches)
