"""Statistics of a batch, held against PyTorch's batch norm."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.quantize.qat.batch_norm.batch_statistics import batch_statistics_


@given(
    momentum=st.one_of(st.none(), st.floats(0, 1)),
    batch=st.integers(1, 5),
    size=st.integers(2, 4),
    steps=st.integers(1, 4),
    double=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=30)
def test_running_statistics_follow_as_in_pytorch(
    momentum: float | None, batch: int, size: int, steps: int, double: bool, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    ours, theirs = (nn.BatchNorm1d(3, momentum=momentum).to(dtype) for _ in range(2))
    for _ in range(steps):
        y = torch.randn(batch, 3, size, generator=draw, dtype=dtype) * 3 + 7
        mean, var = batch_statistics_(ours, y)
        theirs(y)
        torch.testing.assert_close(mean, y.mean((0, 2)))
        torch.testing.assert_close(var, y.var((0, 2), correction=0))
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))


def test_gradients_go_through_both() -> None:
    y = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: batch_statistics_(nn.BatchNorm1d(2).double(), y), (y,))


def test_few_bits_are_added_up_in_float32() -> None:
    y = torch.full((1000, 1), 300.0, dtype=torch.bfloat16)
    mean, var = batch_statistics_(nn.BatchNorm1d(1), y)
    assert (mean.dtype, mean.item(), var.item()) == (torch.float32, 300.0, 0.0)


def test_one_value_has_no_variance() -> None:
    with pytest.raises(BadArgument, match=r"more than one value a channel while training, found shape"):
        batch_statistics_(nn.BatchNorm1d(3), torch.zeros(1, 3))


def test_statistics_over_processes_are_refused() -> None:
    with pytest.raises(UnsupportedOperation, match=r"found SyncBatchNorm\. Take the scheme plain"):
        batch_statistics_(nn.SyncBatchNorm(3), torch.zeros(2, 3))
