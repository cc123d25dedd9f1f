"""Capturing a model: where nodes come from, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gracile.errors import CaptureError
from gracile.graph import capture, evaluating
from gracile.testing.nets import net


def test_nodes_know_their_module_parameter_and_source() -> None:
    model, inputs = net("residual")
    captured = capture(model, inputs)
    conv = next(n for n in captured.graph.nodes if "conv2d" in str(n.target))
    assert captured.module_of(conv) == "stem"
    assert captured.param_of(conv.args[1]) == "stem.weight"
    file, line, text = captured.source(conv).split(":", 2)
    assert Path(file).name == "nets.py"
    assert Path(file).read_text().splitlines()[int(line) - 1].strip() == text.strip()


def test_modes_come_back_one_by_one() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    model.train()
    model[1].eval()
    seen = []

    def stop() -> None:
        with evaluating(model):
            seen.append(model[0].training)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop()
    assert seen == [False]
    assert model.training
    assert model[0].training
    assert not model[1].training


def test_a_branch_on_values_is_refused_with_reason() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if bool(x.sum() > 0) else x

    with pytest.raises(CaptureError, match=r"wanted a model that torch\.export captures for inputs of shape"):
        capture(Branch(), (torch.zeros(1, 2),))


def test_a_wrong_input_shape_is_refused() -> None:
    model, _ = net("plain")
    with pytest.raises(CaptureError, match=r"\(1, 4, 8, 8\)"):
        capture(model, (torch.zeros(1, 4, 8, 8),))
