"""Shifts and flips against a slow loop."""

from __future__ import annotations

import pytest
import torch

from gracile.data import random_crop_flip
from gracile.errors import BadArgument


def is_shift_or_mirror(image: torch.Tensor, original: torch.Tensor, padding: int) -> bool:
    """Try every shift, mirrored or not, by loops."""
    channels, height, width = original.shape
    padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=original.dtype)
    padded[:, padding : padding + height, padding : padding + width] = original
    for down in range(2 * padding + 1):
        for right in range(2 * padding + 1):
            crop = padded[:, down : down + height, right : right + width]
            if torch.equal(image, crop) or torch.equal(image, crop.flip(2)):
                return True
    return False


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_image_is_a_shift_of_its_own(dtype: torch.dtype) -> None:
    images = torch.randint(1, 255, (12, 3, 6, 5)).to(dtype)
    out = random_crop_flip(images, torch.Generator().manual_seed(1), padding=2)
    assert out.dtype == dtype
    assert all(is_shift_or_mirror(a, b, 2) for a, b in zip(out, images, strict=True))
    assert not torch.equal(out, images)


def test_all_shifts_and_both_sides_come_up() -> None:
    images = torch.arange(1, 10).reshape(1, 1, 3, 3).repeat(2000, 1, 1, 1)
    out = random_crop_flip(images, torch.Generator().manual_seed(0), padding=1)
    assert len(torch.unique(out, dim=0)) == 3 * 3 * 2


def test_without_flip_nothing_is_mirrored() -> None:
    images = torch.arange(1, 10).reshape(1, 1, 3, 3).repeat(500, 1, 1, 1)
    out = random_crop_flip(images, torch.Generator().manual_seed(0), padding=1, flip=False)
    assert len(torch.unique(out, dim=0)) == 9


def test_flips_half() -> None:
    images = torch.arange(1, 10).reshape(1, 1, 3, 3).repeat(2000, 1, 1, 1)
    out = random_crop_flip(images, torch.Generator().manual_seed(0), padding=0)
    mirrored = (out != images).flatten(1).any(dim=1).float().mean()
    assert 0.45 < mirrored < 0.55


def test_a_seed_repeats() -> None:
    images = torch.rand(8, 1, 6, 6)
    first, second = (random_crop_flip(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)


def test_negative_padding() -> None:
    with pytest.raises(BadArgument, match="padding: wanted 0 or more pixels, found padding=-1"):
        random_crop_flip(torch.rand(1, 1, 2, 2), padding=-1)
