"""Training of shared values: like a network whose parameters are the values themselves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from gracile.errors import BadArgument
from gracile.quantize import CentroidTuning, codebook
from gracile.quantize.codebook.apply import codes_of, values_of
from gracile.records import from_json, to_json
from gracile.records.codebook_plan import CodebookPlan


class Looked(nn.Module):
    """A weight looked up in a table: the oracle."""

    def __init__(self, table: torch.Tensor, codes: torch.Tensor) -> None:
        super().__init__()
        self.table, self.codes = nn.Parameter(table), codes

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.table[self.codes]


def shared() -> tuple[nn.Module, CodebookPlan]:
    """A linear layer with some zeros and four values."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 6)
    layer.weight.data[layer.weight.abs() < 0.1] = 0
    return codebook(layer, (torch.zeros(1, 8),), 3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_same_as_training_the_values(momentum: float) -> None:
    layer, plan = shared()
    entry = plan.layers[0]
    oracle = copy.deepcopy(layer)
    table = Looked(torch.tensor(entry.centroids), codes_of(entry))
    zero = entry.centroids.index(0.0)
    table.table.register_hook(lambda g: g.index_fill(0, torch.tensor([zero]), 0))
    oracle.requires_grad_(False)
    parametrize.register_parametrization(oracle, "weight", table, unsafe=True)
    ours = torch.optim.SGD([layer.weight], lr=0.05, momentum=momentum)
    theirs = torch.optim.SGD([table.table], lr=0.05, momentum=momentum)
    tuning = CentroidTuning(plan)
    for step in range(5):
        x, y = torch.randn(16, 8), torch.randn(16, 6)
        tuning.on_step_begin(layer, ours, step=step, epoch=1)
        for net, optimizer in ((layer, ours), (oracle, theirs)):
            optimizer.zero_grad()
            (net(x) - y).square().mean().backward()
            optimizer.step()
        tuning.on_step_end(layer, ours, step=step, epoch=1)
    torch.testing.assert_close(layer.weight, table.table[table.codes], rtol=1e-4, atol=1e-6)
    assert bool((layer.weight[codes_of(entry) == zero] == 0).all())
    assert len(layer.weight.unique()) <= 8


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_values_stay_shared_with_every_optimizer_and_in_averages(kind: type[torch.optim.Optimizer]) -> None:
    layer, plan = shared()
    average = AveragedModel(layer)
    optimizer = kind(layer.parameters(), lr=0.01, weight_decay=0.01)
    tuning = CentroidTuning(plan)
    tuning.on_begin(layer, optimizer, average=average)
    for step in range(4):
        layer(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(layer)
        tuning.on_step_end(layer, optimizer, step=step, epoch=1)
        tuning.on_epoch_end(layer, optimizer, step=step, epoch=1)
    codes = codes_of(plan.layers[0])
    for net in (layer, average.module):
        assert all(len(net.weight[codes == code].unique()) == 1 for code in codes.unique())
    tuned = tuning.tuned
    assert torch.equal(values_of(tuned.layers[0]), layer.weight.detach())
    assert from_json(CodebookPlan, to_json(tuned)) == tuned
    assert tuning.settled


def test_memory_goes_on_and_release_lets_go() -> None:
    layer, plan = shared()
    tuning = CentroidTuning(plan)
    other = CentroidTuning(CodebookPlan(layers=()))
    other.resume(tuning.memory())
    assert other.plan == plan
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    tuning.on_begin(layer, optimizer)
    tuning.release()
    layer(torch.randn(4, 8)).square().sum().backward()
    optimizer.step()
    assert len(layer.weight.unique()) > 8
    with pytest.raises(BadArgument, match="as in the plan"):
        tuning.on_begin(nn.Linear(3, 3), optimizer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_many_weights_in_half_precision_keep_their_values(dtype: torch.dtype) -> None:
    """A counter in half precision stops at 256, or at 2,048."""
    torch.manual_seed(0)
    layer, plan = codebook(nn.Linear(128, 128).to(dtype), (torch.zeros(1, 128, dtype=dtype),), 1)
    before = layer.weight.detach().clone()
    tuning, optimizer = CentroidTuning(plan), torch.optim.SGD(layer.parameters(), lr=0.0)
    tuning.on_begin(layer, optimizer)
    layer(torch.randn(4, 128, dtype=dtype)).square().sum().backward()
    optimizer.step()
    assert torch.allclose(layer.weight, before, rtol=0.01)
