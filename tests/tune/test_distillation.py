"""Distillation against its formula, and what it leaves of the teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from gracile.errors import BadArgument
from gracile.tune import CrossEntropy, Distillation, TuneConfig, fit

IMAGES, LABELS = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_it_is_the_formula(temperature: float, weight: float) -> None:
    teacher, outputs = nn.Linear(3, 4), torch.randn(6, 4)
    taught = log_softmax(teacher(IMAGES).detach().double().numpy() / temperature, axis=1)
    said = log_softmax(outputs.double().numpy() / temperature, axis=1)
    soft = (np.exp(taught) * (taught - said)).sum(1).mean()
    hard = -log_softmax(outputs.double().numpy(), axis=1)[np.arange(6), LABELS.numpy()].mean()
    found = Distillation(teacher, temperature=temperature, weight=weight)(outputs, LABELS, IMAGES)
    assert found.item() == pytest.approx((1 - weight) * hard + weight * temperature**2 * soft, rel=1e-4)


def test_no_weight_is_cross_entropy_and_does_not_run_the_teacher() -> None:
    class Never(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError

    outputs = torch.randn(6, 4)
    loss = Distillation(Never(), weight=0.0, label_smoothing=0.1)
    assert torch.equal(
        loss(outputs, LABELS, IMAGES), CrossEntropy(label_smoothing=0.1)(outputs, LABELS, IMAGES)
    )


def test_the_gradient_of_the_soft_part_keeps_its_size_with_the_temperature() -> None:
    """Hinton, section 2: hot, it tends to that of half the squared distance of centred logits, over C."""
    teacher, outputs = nn.Linear(3, 4), torch.randn(6, 4, requires_grad=True)
    Distillation(teacher, temperature=1000.0, weight=1.0)(outputs, LABELS, IMAGES).backward()
    said, taught = outputs.detach(), teacher(IMAGES).detach()
    apart = (said - said.mean(1, keepdim=True)) - (taught - taught.mean(1, keepdim=True))
    assert outputs.grad is not None
    torch.testing.assert_close(outputs.grad, apart / (4 * 6), atol=1e-3, rtol=1e-2)


def test_the_teacher_stays_as_it_was() -> None:
    teacher = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    outputs = torch.randn(6, 4, requires_grad=True)
    loss = Distillation(teacher)
    assert torch.equal(loss(outputs, LABELS, IMAGES), loss(outputs, LABELS, IMAGES))
    loss(outputs, LABELS, IMAGES).backward()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(module.training for module in teacher.modules())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_student_learns_what_no_label_says() -> None:
    """Labels are noise; what the teacher does is learned all the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(256, 3, generator=generator)
    labels = torch.randint(0, 4, (256,), generator=generator)
    teacher, student = nn.Linear(3, 4), nn.Linear(3, 4)
    config = TuneConfig(epochs=30, lr=0.5, batch_size=32, bf16=False, holdout=0, weight_decay=0)
    fit(
        student,
        torch.utils.data.TensorDataset(images, labels),
        config,
        loss=Distillation(teacher, temperature=2.0, weight=1.0),
    )
    agree = (student(images).argmax(1) == teacher(images).argmax(1)).float().mean()
    assert agree.item() > 0.97


@pytest.mark.parametrize(
    ("change", "says"),
    [({"temperature": 0.0}, "above 0"), ({"weight": 1.5}, "from 0 to 1"), ({"weight": -0.1}, "from 0 to 1")],
)
def test_what_cannot_be_is_refused(change: dict[str, float], says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        Distillation(nn.Linear(3, 4), **change)  # type: ignore[arg-type]


def test_a_teacher_of_other_classes_is_refused() -> None:
    with pytest.raises(BadArgument, match=r"teacher.*\(6, 4\).*\(6, 7\)"):
        Distillation(nn.Linear(3, 7))(torch.randn(6, 4), LABELS, IMAGES)
