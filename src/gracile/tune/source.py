"""What to train on, whatever form it came in: batches an epoch, and the part held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

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
            with a length that can be gone through again, such as a list or a ``DataLoader``. Processes go
            through batches in one order, which torch's global generator decides, and each takes its share.
        config: Batch size, augmentation, share held out and seed.
        holdout: Held-out data in any of those forms; None splits off ``config.holdout`` of the examples.
        rank: Which of the ``processes`` this is.
        processes: How many share each epoch.

    Raises:
        BadArgument: The data are empty, have no length or are divided already, or early stopping has nothing
            to go by.
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
            generator = torch.Generator().manual_seed(generator.initial_seed() + 1 + rank)
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
    if processes > 1 and isinstance(getattr(data, "sampler", None), DistributedSampler):
        raise BadArgument(
            "train_data",
            wanted="batches of all examples, which fit divides among the processes",
            found="a DataLoader with a DistributedSampler, which divides them already",
            do="Pass shuffle=True in place of the sampler.",
        )
    steps = len(data) // processes

    def epoch(generator: torch.Generator) -> Iterator[Batch]:
        batches = data if processes == 1 else _alike(data, generator.initial_seed())
        for index, batch in enumerate(batches):
            if index % processes == rank and index < steps * processes:
                yield batch

    return epoch, steps


def _alike(data: Iterable[Batch], seed: int) -> Iterator[Batch]:
    """The batches of ``data``, the same in every process whatever each draws from torch in between."""
    stream = torch.Generator().manual_seed(seed).get_state()
    batches: Iterator[Batch] | None = None
    while True:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(stream)
            batches = iter(data) if batches is None else batches
            batch = next(batches, None)
            stream = torch.get_rng_state()
        if batch is None:
            return
        yield batch


def _held(holdout: Data | None, config: TuneConfig) -> tuple[Callable[[], Iterable[Batch]], int]:
    if holdout is None:
        return (lambda: ()), 0
    if isinstance(holdout, Batches | Dataset):
        examples = as_batches(holdout)
        return (lambda: examples.batches(config.batch_size)), len(examples)
    batches = list(holdout)
    return (lambda: batches), sum(len(labels) for _, labels in batches)
