"""Trained ternary quantization: equations 6 to 8."""

import pytest
import torch

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.quantize.qat.weights import TTQ

WEIGHT = torch.tensor([[0.5, -0.25, 0.04, 1.0], [-2.0, -1.0, 0.05, 0.2]])


def test_values_and_gradients_are_the_formulas() -> None:
    weight = WEIGHT.clone().requires_grad_()
    quantizer = TTQ(2, axis=0, channels=2)
    quantizer.positive_scale.data.copy_(torch.tensor([0.6, 0.3]))
    quantizer.negative_scale.data.copy_(torch.tensor([0.2, 0.9]))
    rounded = quantizer(weight)
    torch.testing.assert_close(rounded, torch.tensor([[0.6, -0.2, 0.0, 0.6], [-0.9, -0.9, 0.0, 0.3]]))
    g = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    (rounded * g).sum().backward()
    torch.testing.assert_close(quantizer.positive_scale.grad, torch.tensor([5.0, 8.0]))
    torch.testing.assert_close(quantizer.negative_scale.grad, torch.tensor([-2.0, -11.0]))
    factors = torch.tensor([[0.6, 0.2, 1.0, 0.6], [0.9, 0.9, 1.0, 0.3]])
    torch.testing.assert_close(weight.grad, factors * g)


def test_values_start_as_the_means_of_their_weights() -> None:
    quantizer = TTQ.of(WEIGHT, bits=2, axis=0)
    torch.testing.assert_close(quantizer.levels(), torch.tensor([[-0.25, 0.0, 0.75], [-1.5, 0.0, 0.2]]))


def test_a_sign_without_weights_starts_as_the_other() -> None:
    """So that the first weight to change its sign does not jump far beyond all others."""
    quantizer = TTQ.of(torch.tensor([[0.05, 0.02, 0.03], [-0.2, -0.4, 0.0]]), bits=2, axis=0)
    wanted = torch.tensor([[-1 / 30, 0.0, 1 / 30], [-0.3, 0.0, 0.3]])
    torch.testing.assert_close(quantizer.levels(), wanted)


def test_a_larger_threshold_makes_more_zeros() -> None:
    shares = []
    for threshold in (0.0, 0.05, 0.3, 0.9):
        integers = TTQ(2, threshold=threshold).integers(WEIGHT)
        shares.append(float((integers == 0).float().mean()))
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 7 / 8


def test_there_is_no_single_step() -> None:
    with pytest.raises(UnsupportedOperation, match="codebook"):
        TTQ(2).scale(WEIGHT)


def test_thresholds_outside_their_range_are_refused() -> None:
    with pytest.raises(BadArgument, match="threshold"):
        TTQ.of(WEIGHT, bits=2, threshold=1.0)
