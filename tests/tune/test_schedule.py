"""The pure learning rate against torch's schedulers."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gracile.tune import SCHEDULES, learning_rate


def _torch_rates(make: type, steps: int, **options: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = make(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs() -> None:
    ours = [learning_rate(i, 20, lr=0.3) for i in range(20)]
    theirs = _torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, 20, T_max=20)
    assert ours == pytest.approx(theirs)


def test_step_is_torchs_multistep() -> None:
    ours = [
        learning_rate(i, 20, lr=0.3, schedule="step", milestones=(0.25, 0.75), gamma=0.2) for i in range(20)
    ]
    theirs = _torch_rates(torch.optim.lr_scheduler.MultiStepLR, 20, milestones=[5, 15], gamma=0.2)
    assert ours == pytest.approx(theirs)


@given(st.integers(1, 200), st.data(), st.sampled_from(sorted(SCHEDULES)))
def test_rises_during_warmup_and_never_after(total: int, data: st.DataObject, schedule: str) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    rates = [learning_rate(i, total, lr=1.0, schedule=schedule, warmup=warmup) for i in range(total)]
    assert all(0 < a < b for a, b in itertools.pairwise(rates[: warmup + 1]))
    assert rates[warmup] == 1.0
    assert all(0 <= b <= a for a, b in itertools.pairwise(rates[warmup:]))


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_a_rewound_run_goes_through_the_end_of_the_whole_one(schedule: str) -> None:
    whole = [learning_rate(i, 40, lr=0.1, schedule=schedule) for i in range(40)]
    late = [learning_rate(i, 10, lr=0.1, schedule=schedule, rewound=0.75) for i in range(10)]
    assert late == pytest.approx(whole[30:])
