"""Windows of clips: gathered as a loop would, never across clips, split by group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gracile.data import DataBundle, WindowData
from gracile.data.windows import statistics
from gracile.errors import BadArgument, DataError
from gracile.tune.split import split

LENGTHS = [3, 7, 5]


def make(**changes: Any) -> WindowData:
    arguments = {
        "features": torch.arange(30.0).view(2, 15),
        "lengths": torch.tensor(LENGTHS),
        "starts": torch.tensor([0, 2, 6, 4, 0]),
        "clips": torch.tensor([0, 1, 1, 2, 2]),
        "labels": torch.tensor([0, 1, 1, 0, 0]),
        "frames": 4,
    }
    return WindowData(**(arguments | changes))


@given(frames=st.integers(1, 12), clip=st.integers(0, 2), data=st.data())
def test_windows_are_those_of_a_loop(frames: int, clip: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, LENGTHS[clip] - 1))
    made = make(
        starts=torch.tensor([start]), clips=torch.tensor([clip]), labels=torch.tensor([1]), frames=frames
    )
    begin = sum(LENGTHS[:clip])
    for row in range(2):
        by_hand = [15 * row + begin + (start + i) % LENGTHS[clip] for i in range(frames)]
        assert made[0][0][row].tolist() == by_hand


def test_batches_give_every_window_once() -> None:
    data = make()
    images = torch.cat([images for images, _ in data.batches(2)])
    assert torch.equal(images, torch.stack([data[i][0] for i in range(5)]))
    assert data[-1][1] == 0
    assert sum(len(labels) for _, labels in data.batches(2, drop_last=True)) == 4


def test_normalised_by_feature() -> None:
    data = make(mean=torch.tensor([1.0, 20.0]), std=torch.tensor([2.0, 5.0]))
    plain = make()[3][0]
    torch.testing.assert_close(
        data[3][0], (plain - torch.tensor([[1.0], [20.0]])) / torch.tensor([[2.0], [5.0]])
    )


def test_augmentation_starts_anywhere_in_the_same_clip() -> None:
    data = make()
    first = [images[2, 0, 0].item() for _ in range(60) for images, _ in data.batches(5, augment=True)]
    assert set(first) == set(range(3, 10))
    seeded = [
        next(data.batches(5, augment=True, generator=torch.Generator().manual_seed(3)))[0] for _ in "ab"
    ]
    assert torch.equal(*seeded)


def test_augmentation_is_refused_where_the_label_holds_for_one_place() -> None:
    with pytest.raises(BadArgument, match="augment: wanted windows that may be shifted"):
        next(make(can_shift=False).subset([0, 1]).batches(2, augment=True))


def test_subset_keeps_order_and_groups() -> None:
    part = make(groups=torch.tensor([9, 8, 8, 7, 7])).subset([4, 0])
    assert part.labels.tolist() == [0, 0]
    assert part.groups.tolist() == [7, 9]
    assert torch.equal(part[1][0], make()[0][0])


@given(share=st.floats(0.05, 0.95), seed=st.integers(0, 50))
def test_no_clip_stands_on_both_sides_of_a_split(share: float, seed: int) -> None:
    count = 40
    data = make(
        starts=torch.zeros(count, dtype=torch.long),
        clips=torch.zeros(count, dtype=torch.long),
        labels=torch.arange(count) % 2,
        groups=torch.arange(count) // 4,
    )
    bundle = DataBundle(name="toy", train=data, test=data, classes=2, input_shape=(2, 4))
    for rest, held in (split(data, share, seed=seed), bundle.split_holdout(share, seed=seed)):
        assert isinstance(rest, WindowData)
        assert isinstance(held, WindowData)
        assert not set(rest.groups.tolist()) & set(held.groups.tolist())
        assert len(rest) + len(held) == count
        assert len(rest) >= 4
        assert abs(len(held) - share * count) <= 4


def test_a_single_group_cannot_be_parted() -> None:
    with pytest.raises(BadArgument, match=r"at least 2 examples that may be parted, found share=0\.5 of 1"):
        split(make(groups=torch.zeros(5)), 0.5)


def test_statistics_of_a_constant_feature() -> None:
    mean, std = statistics(torch.tensor([[5.0, 5.0], [0.0, 4.0]]))
    assert mean.tolist() == [5.0, 2.0]
    assert std.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": torch.tensor([3, 7, 4])}, r"found features \(2, 15\) and 14 frames in 3 clips"),
        ({"lengths": torch.tensor([0, 10, 5])}, "as many frames in clips of at least one"),
        ({"frames": 0}, "as many frames in clips of at least one"),
        ({"labels": torch.tensor([0, 1])}, "found 5 starts, 5 clips, 2 labels, 5 groups"),
        ({"clips": torch.tensor([0, 1, 1, 2, 3])}, "clips from 0 to 2, found clip 3"),
        ({"starts": torch.tensor([3, 2, 6, 4, 0])}, "starts inside their clips"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**changes)
