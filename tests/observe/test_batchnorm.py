"""Batch-norm statistics estimated again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gracile.errors import BadArgument, NonFiniteError
from gracile.observe.batchnorm import reestimate_


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3, momentum=0.3),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.BatchNorm1d(12),
    )


def test_the_first_norm_gets_mean_and_variance_of_all_batches() -> None:
    model = net()
    data = torch.randn(12, 2, 4, 4)
    assert reestimate_(model, data.split(5)) == ("1", "5")
    with torch.no_grad():
        inside = model[0](data)
    torch.testing.assert_close(model[1].running_mean, inside.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, inside.var((0, 2, 3)))


def test_with_one_batch_it_is_a_training_step_with_momentum_one() -> None:
    model = net()
    model[3].p = 0.0
    wanted = copy.deepcopy(model).train()
    for norm in (wanted[1], wanted[5]):
        norm.momentum = 1.0
    data = torch.randn(8, 2, 4, 4)
    wanted(data)
    reestimate_(model, [data])
    for key, tensor in wanted.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(model.state_dict()[key], tensor)


def test_only_the_named_norms_change_and_nothing_else() -> None:
    model = net().train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    assert reestimate_(model, [torch.randn(8, 2, 4, 4)], only=("5",)) == ("5",)
    changed = {k for k, t in model.state_dict().items() if not torch.equal(t, before[k])}
    assert changed == {"5.running_mean", "5.running_var"}
    assert [m.training for m in model.modules()] == modes
    assert model[1].momentum == 0.3
    assert model[1].track_running_stats


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("stop")


def test_everything_is_restored_after_an_error() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), Fails()).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="stop"):
        reestimate_(model, [torch.randn(4, 2, 3, 3)])
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert list(model.state_dict()) == list(before)
    assert model[0].training
    assert model[0].track_running_stats
    assert not model[0]._forward_pre_hooks


def test_a_norm_that_runs_twice_sees_both() -> None:
    norm = nn.BatchNorm1d(1)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm(x + 2)

    reestimate_(Twice(), [torch.tensor([[1.0], [3.0]])])
    assert norm.running_mean.item() == 3.0


def test_no_data_and_no_numbers_are_refused() -> None:
    with pytest.raises(BadArgument, match="at least one input"):
        reestimate_(net(), [])
    model = net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFiniteError, match="1: wanted finite inputs"):
        reestimate_(model, [torch.full((2, 2, 4, 4), float("inf"))])
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_a_model_without_norms_is_left_alone() -> None:
    assert reestimate_(nn.Linear(1, 1), [torch.zeros(1, 1)]) == ()


def test_batches_may_be_lists_as_a_loader_gives_them() -> None:
    model, data = net(), torch.randn(12, 2, 4, 4)
    twin = copy.deepcopy(model)
    assert reestimate_(model, DataLoader(TensorDataset(data), batch_size=5)) == ("1", "5")
    reestimate_(twin, data.split(5))
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


def test_a_batch_of_one_value_a_channel_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BadArgument, match=r"a channel at 1, .* found its input of shape \(1, 2\)\. Leave"):
        reestimate_(model, torch.randn(9, 3).split(4))
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_one_image_has_places_to_normalise_by() -> None:
    norm, data = nn.BatchNorm2d(2), torch.randn(5, 2, 3, 3)
    reestimate_(norm, data.split(4))
    torch.testing.assert_close(norm.running_mean, data.mean((0, 2, 3)))


def test_batches_go_where_the_model_is() -> None:
    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.marker = nn.Parameter(torch.empty(1, device="meta"))
            self.norm = nn.BatchNorm1d(1, affine=False)

        def forward(self, x: Tensor) -> Tensor:
            assert x.device == self.marker.device
            return self.norm(torch.ones(x.shape))

    model = Elsewhere()
    reestimate_(model, [torch.zeros(4, 1)])
    assert model.norm.running_mean.item() == 1.0
