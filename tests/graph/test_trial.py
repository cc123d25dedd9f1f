"""Outputs of changed models are compared in a precision that tells a change from rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.graph import Trial, difference


class Runs(nn.Module):
    """A layer between two functions."""

    def __init__(self, before=lambda x: x, behind=lambda x: x) -> None:
        super().__init__()
        self.layer, self.before, self.behind = nn.Linear(4, 8), before, behind

    def forward(self, x: Tensor):
        return self.behind(self.layer(self.before(x)))


def changed(model: nn.Module, by: float) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layer.weight.mul_(1 + by)
    return other


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_small_changes_show_in_any_type(dtype: torch.dtype) -> None:
    trial = Trial(Runs().to(dtype), (torch.zeros(2, 4, dtype=dtype),))
    assert difference(trial.run(trial.model), trial.outputs) == 0
    assert 1e-6 < difference(trial.run(changed(trial.model, 1e-5)), trial.outputs) < 1e-4


def test_code_that_fixes_a_type_runs_in_it() -> None:
    ones = torch.ones(4, 4)
    trial = Trial(Runs(before=lambda x: x @ ones), (torch.zeros(2, 4),))
    assert trial.outputs.dtype == torch.float32
    halves = torch.ones(8, 3, dtype=torch.bfloat16)
    half = Trial(Runs(behind=lambda x: x @ halves).bfloat16(), (torch.zeros(2, 4, dtype=torch.bfloat16),))
    assert half.outputs.dtype == torch.bfloat16


def test_a_model_that_fails_on_the_inputs_says_so() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Trial(Runs(), (torch.zeros(2, 5),))


def test_a_model_may_write_into_its_inputs() -> None:
    x = torch.ones(2, 4)
    trial = Trial(Runs(before=lambda x: x.sub_(1).div_(2)), (x,))
    assert difference(trial.run(trial.model), trial.outputs) == 0
    assert torch.equal(x, torch.ones(2, 4))


def test_inputs_themselves_are_used_where_random_ones_give_no_numbers() -> None:
    trial = Trial(Runs(before=torch.log), (torch.full((2, 4), 2.0),))
    assert bool(trial.outputs.isfinite().all())
    assert difference(trial.run(changed(trial.model, 0.1)), trial.outputs) > 1e-3


def test_every_part_of_the_outputs_counts() -> None:
    a = torch.tensor([1.0, -2.0])
    wanted = {"a": a, "b": [a > 0, 3], "c": (None, a.clone())}
    assert difference(copy.deepcopy(wanted), wanted) == 0
    assert difference({**wanted, "b": [a < 0, 3]}, wanted) == 1
    assert difference({**wanted, "b": [a > 0, 4]}, wanted) == 1
    assert difference({**wanted, "c": (None, a + 1)}, wanted) == 0.5
    assert difference({**wanted, "a": a[:1]}, wanted) == float("inf")
    assert difference({"a": a}, wanted) == float("inf")


def test_infinities_count_where_one_alone_has_them() -> None:
    masked = torch.tensor([1.0, -float("inf"), float("nan")])
    assert difference(masked.clone(), masked) == 0
    assert difference(masked.nan_to_num(0.0), masked) == float("inf")
    assert difference(masked, torch.ones(3)) == float("inf")
    assert difference(torch.tensor([1.5, -float("inf"), float("nan")]), masked) == 0.5


def test_a_change_is_kept_only_where_it_can_be_made_runs_and_gives_the_outputs() -> None:
    torch.manual_seed(0)
    trial = Trial(nn.Linear(4, 2), (torch.zeros(1, 4),))

    def refused(model: nn.Module) -> nn.Module:
        raise BadArgument("plan", wanted="another model", found="this one")

    assert trial.kept_by(lambda model: nn.Sequential(model, nn.Identity()), 1e-6)
    assert not trial.kept_by(lambda model: nn.Sequential(model, nn.Tanh()), 1e-6)
    assert not trial.kept_by(lambda model: nn.Sequential(model, nn.Linear(3, 1)), 1e-6)
    assert not trial.kept_by(refused, 1e-6)
