"""Second moments and the layout of a convolution as a matrix product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from gracile.errors import NonFiniteError
from gracile.observe.gram import Gram, patches, rows_of

CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}


@settings(max_examples=40)
@given(
    rank=st.sampled_from([1, 2, 3]), kernel=st.integers(1, 3), stride=st.integers(1, 3),
    padding=st.integers(0, 2), dilation=st.integers(1, 2), channels=st.integers(1, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_patches_times_weights_is_the_convolution(
    rank, kernel, stride, padding, dilation, channels, seed
) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, channels, *[6, 7, 5][:rank], generator=draw, dtype=torch.float64)
    w = torch.randn(4, channels, *[kernel] * rank, generator=draw, dtype=torch.float64)
    wanted = CONVOLUTIONS[rank](x, w, None, stride, padding, dilation)
    way = {"stride": [stride] * rank, "padding": [padding] * rank, "dilation": [dilation] * rank}
    torch.testing.assert_close(patches(x, [kernel] * rank, **way) @ w.flatten(1).T, rows_of(wanted))
    at = torch.randperm(wanted[0, 0].numel(), generator=draw)[:3]
    torch.testing.assert_close(
        patches(x, [kernel] * rank, **way, at=at) @ w.flatten(1).T, rows_of(wanted, at)
    )


def test_unequal_axes() -> None:
    x, w = torch.randn(1, 2, 9, 8), torch.randn(3, 2, 3, 1)
    wanted = torch.conv2d(x, w, None, (2, 1), (1, 0), (2, 1))
    rows = patches(x, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(2, 1))
    torch.testing.assert_close(rows @ w.flatten(1).T, rows_of(wanted))


def test_batches_add_up_to_the_whole() -> None:
    x, y = torch.randn(30, 4), torch.randn(30, 2)
    seen = Gram("layer", 4, 2)
    for part in (slice(0, 7), slice(7, 30)):
        seen.update(x[part], y[part])
    whole = np.c_[x.double().numpy(), np.ones(30)]
    np.testing.assert_allclose(seen.xx.numpy(), whole.T @ whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(seen.xy.numpy(), whole.T @ y.double().numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(seen.yy.numpy(), (y.double() ** 2).sum(0).numpy())
    assert seen.rows == 30


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_and_not_added(bad: float) -> None:
    seen = Gram("stage.conv", 1, 1)
    with pytest.raises(NonFiniteError, match=r"stage\.conv: wanted finite activations"):
        seen.update(torch.tensor([[bad]]), torch.ones(1, 1))
    assert seen.rows == 0
    assert not seen.xx.any()


def test_sums_of_half_precision_stay_in_range() -> None:
    rows = torch.full((64, 3), 40.0, dtype=torch.float16)
    seen = Gram("layer", 3, 1)
    seen.update(rows, rows[:, :1])
    assert seen.xx[0, 0] == seen.xy[0, 0] == seen.yy[0] == 64 * 1600


def test_places_drawn_on_the_processor_serve_maps_on_a_graphics_card() -> None:
    at = torch.tensor([0, 3])
    with FakeTensorMode(allow_non_fake_inputs=True):
        maps = torch.empty(2, 3, 4, 4, device="cuda")
        ones = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
        assert patches(maps, (3, 3), **ones, at=at).device == rows_of(maps, at).device == maps.device
