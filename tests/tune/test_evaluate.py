"""Judging: counts by hand, and the model's mode is put back."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gracile.tune import evaluate


def test_uneven_batches_weigh_by_their_size() -> None:
    outputs, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    score = evaluate(nn.Identity(), [(outputs[:5], labels[:5]), (outputs[5:], labels[5:])])
    assert score.loss == pytest.approx(F.cross_entropy(outputs, labels).item(), rel=1e-5)
    assert score.accuracy == pytest.approx(100 * (outputs.argmax(1) == labels).float().mean().item())
    assert score.n == 7


def test_nothing_to_judge_is_nan() -> None:
    score = evaluate(nn.Identity(), [])
    assert (math.isnan(score.accuracy), math.isnan(score.loss), score.n) == (True, True, 0)


def test_it_runs_in_evaluation_mode_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.9))
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = (torch.randn(6, 4), torch.zeros(6, dtype=torch.long))
    first, second = evaluate(model, [batch]), evaluate(model, [batch])
    assert first == second
    assert (model.training, model[1].training, model[2].training) == (True, True, False)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_that_keeps_tensors_can_be_trained_afterwards() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.table = nn.Linear(4, 4), None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.table is None:
                self.table = torch.linspace(0, 1, 4)
            return self.layer(x * self.table)

    model = Remembers()
    evaluate(model, [(torch.ones(2, 4), torch.tensor([0, 1]))])
    model(torch.ones(2, 4, requires_grad=True)).sum().backward()
    assert model.layer.weight.grad is not None
