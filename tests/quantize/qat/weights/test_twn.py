"""Ternary weight networks: threshold, value, and how near they are to the best."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gracile.quantize.qat.weights import TWN

arrays = hnp.arrays("float32", (2, 9), elements=st.floats(-3, 3, width=32))


@settings(deadline=None)
@given(arrays)
def test_values_are_the_formula(array: object) -> None:
    weight = torch.as_tensor(array)
    rounded = TWN(2, axis=0, channels=2)(weight)
    for row, own in zip(weight.tolist(), rounded.tolist(), strict=True):
        threshold = 0.7 * sum(abs(w) for w in row) / 9
        beyond = [abs(w) for w in row if abs(w) > threshold]
        if any(abs(abs(w) - threshold) < 1e-6 for w in row):
            continue
        value = sum(beyond) / max(len(beyond), 1)
        for w, q in zip(row, own, strict=True):
            expected = value * (1 if w > 0 else -1) if abs(w) > threshold else 0.0
            assert abs(q - expected) < 1e-5


def test_gaussian_weights_come_within_a_few_percent_of_the_best_threshold() -> None:
    weight = torch.randn(4000, generator=torch.Generator().manual_seed(0))

    def error(threshold: float) -> float:
        beyond = weight.abs() > threshold
        value = weight.abs()[beyond].mean()
        return float((weight - value * weight.sign() * beyond).square().mean())

    best = min(error(t / 50) for t in range(100))
    assert float((TWN(2)(weight) - weight).square().mean()) < 1.03 * best


def test_the_gradient_passes_straight() -> None:
    weight, g = torch.randn(8, requires_grad=True), torch.randn(8)
    (TWN(2)(weight) * g).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, g)
