"""What each of several processes sees of an epoch; ranks are played one after another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from gracile.errors import BadArgument
from gracile.observe import DatasetBatches
from gracile.tune import TuneConfig
from gracile.tune.source import Batch, Data, make_source


def numbered(count: int = 64) -> TensorDataset:
    return TensorDataset(torch.arange(float(count))[:, None], torch.zeros(count, dtype=torch.long))


def played(data: Data, config: TuneConfig, rank: int, epoch: int = 1) -> list[Batch]:
    """The batches of one rank, which draws random numbers of its own in between, as dropout does."""
    source = make_source(data, config, None, rank=rank, processes=2)
    generator = torch.Generator().manual_seed(1000 * epoch)
    torch.manual_seed(1000 * epoch + rank)
    found = []
    for batch in source.epoch(generator):
        found.append(batch)
        torch.rand(1 + rank)
    assert len(found) == source.steps
    return found


def together(batches: list[Batch]) -> list[float]:
    return torch.cat([images for images, _ in batches]).flatten().tolist()


class Drawn:
    """Batches whose order is drawn while they are gone through, not at the start."""

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[Batch]:
        left = list(torch.arange(64.0).split(8))
        while left:
            images = left.pop(int(torch.randint(len(left), ())))
            yield images[:, None], torch.zeros(8, dtype=torch.long)


@pytest.mark.parametrize("kind", ["loader", "examples", "drawn"])
def test_two_processes_share_each_epoch(kind: str) -> None:
    orders = []
    for epoch in (3, 4):
        seen = []
        for rank in (0, 1):
            data: Data = {
                "loader": DataLoader(numbered(), batch_size=8, shuffle=True),
                "examples": numbered(),
                "drawn": Drawn(),
            }[kind]
            seen.append(together(played(data, TuneConfig(batch_size=8, holdout=0.0), rank, epoch)))
        assert sorted(seen[0] + seen[1]) == list(range(64))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_what_a_process_draws_itself_is_its_own() -> None:
    loader, draws = DataLoader(numbered(), batch_size=8, shuffle=True), []
    for rank in (0, 1):
        source = make_source(loader, TuneConfig(), None, rank=rank, processes=2)
        torch.manual_seed(5 + rank)
        wanted = torch.rand(4)
        torch.manual_seed(5 + rank)
        draws.append(torch.cat([torch.rand(1) for _ in source.epoch(torch.Generator().manual_seed(5))]))
        assert torch.equal(draws[-1], wanted)
    assert not torch.equal(draws[0], draws[1])


def test_augmentation_differs_between_processes() -> None:
    def noise(images: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.rand(images.shape, generator=generator)

    data = DatasetBatches(numbered(), noise)
    config = TuneConfig(batch_size=8, holdout=0.0, augment=True)
    first, second = (together(played(data, config, rank)) for rank in (0, 1))
    assert not set(first) & set(second)
    assert first == together(played(data, config, 0))


def test_one_process_goes_through_a_loader_as_it_is() -> None:
    loader = DataLoader(numbered(), batch_size=8, shuffle=True)
    torch.manual_seed(3)
    wanted = together(list(loader))
    torch.manual_seed(3)
    found = list(make_source(loader, TuneConfig(), None).epoch(torch.Generator()))
    assert together(found) == wanted


def test_a_loader_that_is_divided_already_is_refused() -> None:
    sampler = DistributedSampler(numbered(), num_replicas=2, rank=0)
    loader = DataLoader(numbered(), batch_size=8, sampler=sampler)
    with pytest.raises(BadArgument, match="DistributedSampler, which divides them already"):
        make_source(loader, TuneConfig(), None, rank=0, processes=2)
