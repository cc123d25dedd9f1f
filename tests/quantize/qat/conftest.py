"""Oracles for gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

Slope = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


@pytest.fixture
def slope() -> Slope:
    """Central differences of a scalar function, one entry of its argument at a time, in float64."""

    def differences(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        at, step = at.detach().double(), 1e-6
        out = at.new_zeros(at.shape)
        for index in range(at.numel()):
            up, down = at.clone(), at.clone()
            up.view(-1)[index] += step
            down.view(-1)[index] -= step
            out.view(-1)[index] = (function(up) - function(down)) / (2 * step)
        return out

    return differences
