"""Cross entropy against its formula."""

from __future__ import annotations

import pytest
import torch

from gracile.tune import CrossEntropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_it_is_the_formula(smoothing: float) -> None:
    outputs, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    target = torch.full((6, 4), smoothing / 4, dtype=torch.float64)
    target[torch.arange(6), labels] += 1 - smoothing
    wanted = -(target * outputs.log_softmax(1)).sum(1).mean()
    found = CrossEntropy(label_smoothing=smoothing)(outputs, labels, torch.empty(6))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_bfloat16_outputs_are_summed_in_float32() -> None:
    outputs = torch.randn(8, 4).bfloat16()
    loss = CrossEntropy()(outputs, torch.zeros(8, dtype=torch.long), torch.empty(8))
    assert loss.dtype == torch.float32
