"""Evaluation mode for a while."""

from __future__ import annotations

import pytest
from torch import nn

from gracile.observe.modes import evaluating


def test_each_module_has_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2).eval()))
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, True, False]


def test_even_after_an_error() -> None:
    model = nn.Dropout()
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training
