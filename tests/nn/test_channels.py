"""Gather, scatter and mask against numpy, and through the exporter."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gracile.errors import BadArgument
from gracile.nn import GatherChannels, MaskChannels, ScatterChannels

indices = st.integers(1, 9).flatmap(
    lambda width: st.tuples(
        st.just(width), st.lists(st.integers(0, width - 1), unique=True, min_size=1, max_size=width)
    )
)


@given(indices, st.integers(0, 2))
def test_scatter_is_numpys_assignment_and_gather_its_inverse(case, rank) -> None:
    width, index = case
    x = torch.randn(2, len(index), *[3] * rank)
    scatter = ScatterChannels(torch.tensor(index), width)
    wanted = np.zeros((2, width, *[3] * rank), dtype=np.float32)
    wanted[:, index] = x.numpy()
    assert np.array_equal(scatter(x).numpy(), wanted)
    assert scatter.index.tolist() == index
    assert torch.equal(GatherChannels(torch.tensor(index), width)(scatter(x)), x)


def test_a_constant_is_added_to_every_channel() -> None:
    part = ScatterChannels(torch.tensor([1]), 3, torch.tensor([5.0, 0.0, -1.0]))
    assert part(torch.tensor([[2.0]])).tolist() == [[5.0, 2.0, -1.0]]


def test_gradients_pass() -> None:
    x = torch.randn(1, 2, 2, requires_grad=True)
    part = nn.Sequential(
        ScatterChannels(torch.tensor([2, 0]), 3), MaskChannels(torch.tensor([0.0, 1.0, 2.0]))
    )
    part(x).sum().backward()
    assert x.grad[0].tolist() == [[2.0, 2.0], [0.0, 0.0]]


@pytest.mark.parametrize("index", [[], [0, 0], [3], [-1]])
@pytest.mark.parametrize("kind", [GatherChannels, ScatterChannels])
def test_places_that_cannot_be_are_refused(kind, index) -> None:
    with pytest.raises(BadArgument, match="index: wanted different channels of 3"):
        kind(torch.tensor(index, dtype=torch.long), 3)


@pytest.mark.parametrize(
    "part", [GatherChannels(torch.tensor([2, 0]), 4), ScatterChannels(torch.tensor([5, 0, 2, 1]), 7)]
)
def test_they_export_with_any_batch_size(part, tmp_path) -> None:
    x = torch.randn(2, 4, 3, 3)
    free = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(part.eval(), (x,), dynamic_shapes=free, strict=False)
    torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / "part.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "part.onnx", providers=["CPUExecutionProvider"])
    x = torch.randn(5, 4, 3, 3)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.array_equal(found, part(x).numpy())
