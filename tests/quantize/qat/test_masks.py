"""Weights that are pruned before they train quantized stay zero to the deployed integers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gracile import prune
from gracile.errors import BadArgument
from gracile.quantize.qat import QatScheme, prepare


def blocks() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
    ).eval()


def images(count: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weights", ["lsq", "twn"])
def test_masked_weights_stay_zero(weights: str) -> None:
    net = blocks()
    plan = prune.mask_plan(net, (images(1),), sparsity=0.75, leave=())
    prune.apply_masks_(net, plan)
    before = {name: weight.clone() for name, weight in net.named_parameters()}
    trained = prepare(net, (images(1),), [images()], QatScheme(weight_bits=2, weights=weights)).train()
    masks = prune.Masks(trained.named_as_here(plan))
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        masks.on_step_begin(trained, optimizer, step=step, epoch=1)
        trained(images(8, step + 1)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        masks.on_step_end(trained, optimizer, step=step, epoch=1)
    deployed = trained.eval().convert().plan
    assert {w.layer for w in deployed.weights} <= {m.param.removesuffix(".weight") for m in plan.masks}
    learned = trained.write_back(net)
    for mask in plan.masks:
        weight = learned.get_parameter(mask.param)
        gone = before[mask.param] == 0
        assert gone.float().mean() >= 0.7
        assert not weight[gone].any()
        assert not torch.equal(weight, before[mask.param])


def test_masks_of_another_model_are_refused() -> None:
    other = nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    plan = prune.mask_plan(other, (images(1),), leave=())
    trained = prepare(blocks(), (images(1),), [images()], QatScheme())
    with pytest.raises(BadArgument, match="weight in the captured model"):
        trained.named_as_here(plan)
