"""How far outputs are apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gracile.observe import divergence, outputs


def test_two_distributions_by_hand() -> None:
    wanted, found = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[0.0, 0.0]])
    by_hand = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert divergence(wanted, found) == pytest.approx(by_hand, rel=1e-5)
    assert divergence(torch.cat([wanted] * 3), torch.cat([found] * 3)) == pytest.approx(by_hand, rel=1e-5)


def test_other_outputs_are_compared_by_energy() -> None:
    wanted = torch.ones(1, 2, 3)
    assert divergence(wanted, wanted * 1.1) == pytest.approx(0.01, rel=1e-4)


def test_outputs_are_those_in_evaluation_mode() -> None:
    model = nn.Dropout(0.5).train()
    assert torch.equal(outputs(model, (torch.ones(2, 4),))[0], torch.ones(2, 4))
    assert model.training


def test_several_outputs_add_up_and_masks_do_not_count() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"classes": x, "more": [2 * x, x > 0]}

    found = outputs(Two(), (torch.ones(2, 4),))
    assert [x.mean().item() for x in found] == [1, 2]
    apart = tuple(x + torch.eye(2, 4) for x in found)
    each = [divergence(w, f) for w, f in zip(found, apart, strict=True)]
    assert min(each) > 0
    assert divergence(found, apart) == pytest.approx(sum(each))
