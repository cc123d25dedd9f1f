"""An operation that is handed its weight, held against PyTorch's layers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.quantize.qat.operation import Operation
from tests.quantize.qat.batch_norm.pairs import Case, cases


@given(cases())
@settings(max_examples=40)
def test_it_does_what_the_layer_does(case: Case) -> None:
    layer, x = case.layer().double(), case.inputs(1)[0]
    operation = Operation.of(layer)
    assert torch.equal(operation(x, layer.weight, layer.bias), layer(x))
    assert operation.outputs(layer.weight) == layer(x).shape[1]


@given(cases(), st.integers(0, 99))
@settings(max_examples=40)
def test_a_scaled_weight_scales_each_output(case: Case, seed: int) -> None:
    layer, x = case.layer().double(), case.inputs(1)[0]
    operation = Operation.of(layer)
    plain = operation(x, layer.weight)
    factor = torch.randn(plain.shape[1], dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    wanted = plain * factor.view(-1, *[1] * (plain.dim() - 2))
    torch.testing.assert_close(operation(x, operation.scaled(layer.weight, factor)), wanted)
    one = operation.scaled(layer.weight, factor[0])
    torch.testing.assert_close(operation(x, one), plain * factor[0])


@given(cases(), st.integers(0, 99))
@settings(max_examples=20)
def test_each_row_is_what_one_output_is_computed_with(case: Case, seed: int) -> None:
    layer = case.layer()
    operation = Operation.of(layer)
    factor = torch.randn(operation.outputs(layer.weight), generator=torch.Generator().manual_seed(seed))
    scaled = operation.rows(operation.scaled(layer.weight, factor))
    assert torch.equal(scaled, operation.rows(layer.weight) * factor[:, None])


def test_padding_by_name_and_lists_of_a_captured_graph_are_understood() -> None:
    layer = nn.Conv2d(2, 3, 3, padding="same", dilation=2)
    x = torch.randn(1, 2, 5, 5)
    assert torch.equal(Operation.of(layer)(x, layer.weight, layer.bias), layer(x))
    assert Operation(kind="conv2d", stride=[2, 1]) == Operation(kind="conv2d", stride=(2, 1))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": "conv4d"}, "found conv4d. Did you mean conv"),
        ({"kind": "linear", "groups": 2}, "no stride, padding, dilation or groups"),
        ({"kind": "conv2d", "output_padding": 1}, "a transposed convolution, found 1 in conv2d"),
        ({"kind": "conv2d", "groups": 0}, "at least 1, found 0"),
    ],
)
def test_numbers_that_a_kind_does_not_have_are_refused(fields: dict[str, object], text: str) -> None:
    with pytest.raises(BadArgument, match=text):
        Operation(**fields)


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), nn.ReLU()])
def test_other_layers_are_refused(layer: nn.Module) -> None:
    with pytest.raises(UnsupportedOperation, match="padded with zeros"):
        Operation.of(layer)
