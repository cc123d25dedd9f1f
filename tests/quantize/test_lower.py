"""Lowering: functional, free in its batch size, and the same numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import CaptureError
from gracile.nn import SpatialMean
from gracile.quantize import ptq
from gracile.quantize.lower import lower, op_name
from gracile.testing import NETS, net


@pytest.mark.parametrize("name", NETS)
def test_computes_the_same_at_any_batch_size(name: str) -> None:
    model, inputs = net(name)
    graph = lower(model, inputs)
    for size in (1, 3):
        x = torch.randn(size, *inputs[0].shape[1:])
        with torch.no_grad():
            assert torch.allclose(graph(x), model(x), atol=1e-5)


class InPlace(nn.Module):
    def __init__(self, aliased: bool) -> None:
        super().__init__()
        self.conv, self.aliased = nn.Conv2d(3, 4, 3), aliased

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        side = y[:, :2] if self.aliased else None
        F.relu(y, inplace=True)
        y += 1
        y = F.dropout(y, 0.5, self.training)
        return y.mean((2, 3)) if side is None else torch.cat([y, side], 1).mean((2, 3))


@pytest.mark.parametrize("aliased", [False, True])
def test_calls_in_place_are_written_out_of_place(aliased: bool) -> None:
    model, x = InPlace(aliased).eval(), torch.randn(2, 3, 6, 6)
    graph = lower(model, (x,))
    names = [op_name(n) for n in graph.graph.nodes]
    assert not any(name.endswith("_") for name in names)
    assert "dropout" not in names
    assert torch.allclose(graph(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    ("pool", "found"),
    [
        (lambda x: F.adaptive_avg_pool2d(x, 1), True),
        (lambda x: x.mean((2, 3), keepdim=True), True),
        (lambda x: x.mean((-1, -2)), True),
        (lambda x: F.avg_pool2d(x, 4), True),
        (lambda x: F.avg_pool2d(x, 2), False),
        (lambda x: x.mean(1), False),
    ],
)
def test_means_over_the_whole_map_are_recognised(pool: object, found: bool) -> None:
    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return pool(x)  # type: ignore[operator,no-any-return]

    x = torch.randn(2, 3, 4, 4)
    graph = lower(Pooled(), (x,))
    assert any(isinstance(m, SpatialMean) for m in graph.modules()) is found
    assert torch.allclose(graph(x), Pooled()(x), atol=1e-6)


def test_the_model_keeps_its_mode_and_its_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()).train()
    graph = lower(model, (torch.randn(1, 3, 8, 8),))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not {p.data_ptr() for p in graph.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_what_cannot_be_captured_is_an_error_with_the_reason() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if float(x.sum()) > 0 else x

    with pytest.raises(CaptureError, match=r"^Branch: wanted a model that torch.export captures"):
        lower(Branch(), (torch.randn(1, 3),))


class Permuted(nn.Module):
    """A view that relies on what ``contiguous`` or ``clone`` makes of a permuted tensor."""

    def __init__(self, clone: bool) -> None:
        super().__init__()
        self.clone = clone

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = x.clone(memory_format=torch.contiguous_format) if self.clone else x.contiguous()
        return x.view(x.shape[0], -1)


@pytest.mark.parametrize("clone", [False, True])
def test_views_do_not_need_a_layout_that_is_no_longer_made(clone: bool) -> None:
    model, x = Permuted(clone), torch.randn(2, 3, 4, 5)
    graph = lower(model, (x,))
    assert not {"contiguous", "clone"} & {op_name(n) for n in graph.graph.nodes}
    assert torch.equal(graph(x), model(x))


class Counted(nn.Module):
    """Code that asks for the batch size by ``len``."""

    def __init__(self, loop: bool) -> None:
        super().__init__()
        self.conv, self.loop = nn.Conv2d(3, 4, 3), loop

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return torch.stack([y[i] for i in range(len(x))]) if self.loop else y.view(len(x), -1)


def test_the_batch_stays_free_where_code_asks_for_its_length() -> None:
    model, x = Counted(loop=False).eval(), torch.randn(5, 3, 6, 6)
    graph = lower(model, (x[:1],))
    assert torch.allclose(graph(x), model(x), atol=1e-6)
    assert {n for n, _ in graph.named_parameters()} == {"conv.weight", "conv.bias"}


def test_a_batch_size_that_became_a_number_is_an_error() -> None:
    with pytest.raises(CaptureError, match=r"batch size into the number 2\. Write x\.shape\[0\]"):
        lower(Counted(loop=True), (torch.randn(1, 3, 6, 6),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_graph_is_in_float32_and_the_model_stays(dtype: torch.dtype) -> None:
    model, inputs = net("plain")
    graph = lower(model.to(dtype), (inputs[0].to(dtype),))
    assert {p.dtype for p in graph.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.allclose(graph(inputs[0]), model.float()(inputs[0]), atol=1e-5)


def test_values_named_as_methods_of_a_module_are_quantized() -> None:
    class Bytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x.float())

    torch.manual_seed(0)
    model, images = Bytes().eval(), torch.randint(0, 255, (8, 3, 6, 6), dtype=torch.uint8)
    quantized = ptq(model, (images[:1],), [images])
    with torch.no_grad():
        wanted, found = model(images), quantized(images)
    assert float((found - wanted).abs().max()) < 0.02 * float(wanted.abs().max())
