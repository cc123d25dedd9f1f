"""One convolution: scaled and rounded, scaled back, an ordinary batch norm behind."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.ao.nn.intrinsic.qat import ConvBn2d

from gracile.quantize.qat.batch_norm import OneConvolution
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    Largest,
    built,
)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_pytorchs_own(bits: int, bias: bool) -> None:
    case = Case(rank=2, groups=2, padding=1, bias=bias)
    pair = case.pair().float().train()
    layer = built(OneConvolution, pair, bits=bits)
    config = SimpleNamespace(weight=lambda **_: Largest(bits), activation=nn.Identity)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        oracle = ConvBn2d(4, 6, 2, groups=2, padding=1, bias=bias, eps=pair[1].eps, qconfig=config)
    oracle.load_state_dict(
        {f"{'' if name[0] == '0' else 'bn.'}{name[2:]}": v for name, v in pair.state_dict().items()}
    )
    for x in case.inputs(2):
        found, wanted = layer(x.float()), oracle(x.float())
        torch.testing.assert_close(found, wanted)
        for y in (found, wanted):
            y.square().mean().backward()
    torch.testing.assert_close(layer.weight.grad, oracle.weight.grad)
    torch.testing.assert_close(layer.norm.weight.grad, oracle.bn.weight.grad)
    torch.testing.assert_close(dict(layer.norm.named_buffers()), dict(oracle.bn.named_buffers()))


@pytest.mark.parametrize("gamma", [0.0, -0.0, 1e-30, -1e-12])
@pytest.mark.parametrize("bits", [1, 4])
def test_a_scale_next_to_zero_divides_nothing(gamma: float, bits: int) -> None:
    case = Case(rank=2)
    pair = case.pair().float().train()
    with torch.no_grad():
        pair[1].weight[1] = gamma
    layer = built(OneConvolution, pair, bits=bits)
    for x in case.inputs(2):
        y = layer(x.float())
        y.square().mean().backward()
        torch.testing.assert_close(y[:, 1], pair[1].bias[1].expand_as(y[:, 1]))
    assert all(p.grad.isfinite().all() for p in layer.parameters())
