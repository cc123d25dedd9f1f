"""Tiny networks exported once for all tests of this folder; exporting is what takes the time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gracile import export
from gracile.nn import QuantizedModel
from gracile.quantize import Bits, LeastSquares, Nearest, PerTensor, Scheme, ptq
from gracile.testing import net

SCHEMES = {
    "plain": Scheme(weight_range="minmax", activation_range="minmax", rounding=Nearest()),
    "default": Scheme(),
    "reduced": Scheme(reduce_range=True),
    "large": Scheme(weight_range="minmax", rounding=Nearest(), reduce_range=False),
    "symmetric": Scheme(activation_symmetric=True, weight_range="minmax", activation_range="minmax"),
    "per tensor": Scheme(weight_granularity=PerTensor(), weight_range="minmax", activation_range="minmax"),
    "w4a4": Scheme(weight_bits=4, activation_bits=4, ends=Bits(), rounding=Nearest()),
    "w2a8": Scheme(weight_bits=2, activation_bits=8, ends=Bits(), rounding=Nearest()),
    "w3a6": Scheme(weight_bits=3, activation_bits=6, ends=Bits(), rounding=Nearest()),
    "four bits": Scheme(weight_bits=4, activation_bits=4, sum_bits=4, ends=Bits(), rounding=LeastSquares()),
    "two grids": Scheme(weight_bits=4, activation_bits=4, ends=Bits(), rounding=Nearest()),
    "two bits": Scheme(weight_bits=2, activation_bits=2, sum_bits=2, ends=Bits(), rounding=LeastSquares()),
}

Exported = tuple[QuantizedModel, tuple[Tensor, ...], Path]
Export = Callable[..., Exported]


def without_norms(model: nn.Module) -> nn.Module:
    """The tiny nets with their batch normalisations taken out, as folding would leave them."""
    for name, module in list(model.named_children()):
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            setattr(model, name, nn.Identity())
    return model


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """``exported(net, scheme="plain")`` gives the quantized net, its inputs and its file."""

    @cache
    def make(name: str, scheme: str = "plain") -> Exported:
        model, inputs = net(name)
        data = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        quantized = ptq(without_norms(model), inputs, data.split(16), SCHEMES[scheme])
        path = tmp_path_factory.mktemp("exported") / f"{name}.onnx"
        export.onnx(quantized, inputs, path)
        return quantized, inputs, path

    return make
