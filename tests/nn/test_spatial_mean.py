"""Mean over the spatial axes."""

from __future__ import annotations

import pytest
import torch

from gracile.nn import SpatialMean


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 4), (2, 3, 2, 3, 4)])
def test_is_the_mean_over_all_but_batch_and_channels(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    assert torch.allclose(SpatialMean(keepdim=False)(x), x.flatten(2).mean(2))
    assert SpatialMean()(x).shape == (*shape[:2], *[1] * (len(shape) - 2))
