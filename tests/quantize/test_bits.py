"""How many bits each layer and each edge gets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.quantize import Bits, Nearest, Scheme, ptq


class Small(nn.Module):
    """Two ends, two layers of a residual branch between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(x + self.block(x))
        out: Tensor = self.last(x.mean((2, 3)))
        return out


def bits_of(scheme: Scheme) -> tuple[dict[str, int], list[int]]:
    plan = ptq(Small().eval(), (torch.zeros(1, 3, 8, 8),), torch.randn(16, 3, 8, 8).split(8), scheme).plan
    return {w.layer: w.bits for w in plan.weights}, [edge.bits for edge in plan.edges]


def readers_of(scheme: Scheme) -> list[tuple[str, int, str]]:
    plan = ptq(Small().eval(), (torch.zeros(1, 3, 8, 8),), torch.randn(16, 3, 8, 8).split(8), scheme).plan
    return [(edge.name, edge.bits, edge.readers) for edge in plan.edges]


def test_the_ends_have_eight_bits_and_sums_too() -> None:
    weights, edges = bits_of(Scheme(weight_bits=4, activation_bits=3, rounding=Nearest()))
    assert weights == {"first": 8, "block.0": 4, "block.2": 4, "last": 8}
    # image, first (read by the sum; by block.0), block.0, block.2 (read by the sum alone), sum, mean
    assert edges == [8, 8, 3, 3, 8, 8, 8]


def test_a_trunk_has_a_grid_for_sums_and_a_coarser_one_for_layers() -> None:
    found = readers_of(Scheme(activation_bits=4, rounding=Nearest()))
    assert [row for row in found if row[2] != "all"] == [("relu", 8, "rest"), ("relu:layers", 4, "layers")]


def test_one_grid_is_enough_where_sums_want_no_more_bits_than_layers() -> None:
    for scheme in (
        Scheme(rounding=Nearest()),
        Scheme(activation_bits=4, sum_bits=4, rounding=Nearest()),
        Scheme(activation_bits=6, sum_bits=3, rounding=Nearest()),
    ):
        assert {readers for _, _, readers in readers_of(scheme)} == {"all"}


def test_no_exception_is_made_for_the_ends_when_none_is_wanted() -> None:
    weights, edges = bits_of(
        Scheme(weight_bits=4, activation_bits=3, sum_bits=5, ends=Bits(), rounding=Nearest())
    )
    assert set(weights.values()) == {4}
    assert edges == [3, 5, 3, 3, 5, 5, 3]


def test_the_last_pattern_that_fits_counts_and_keeps_what_it_does_not_name() -> None:
    scheme = Scheme(
        weight_bits=2,
        activation_bits=4,
        rounding=Nearest(),
        layers={"block.*": Bits(weights=3), "block.2": Bits(activations=6), "last": Bits(weights=5)},
    )
    weights, edges = bits_of(scheme)
    assert weights == {"first": 8, "block.0": 3, "block.2": 3, "last": 5}
    assert edges == [8, 8, 4, 6, 8, 8, 8]


def test_a_pattern_that_fits_nothing_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(BadArgument, match=r"blok\.0[\s\S]*first, block\.0, block\.2, last"):
        bits_of(Scheme(layers={"blok.0": Bits(weights=4)}))


@pytest.mark.parametrize("wrong", [0, 9, 4.5])
def test_other_numbers_are_refused(wrong: int) -> None:
    with pytest.raises(BadArgument, match="1 to 8"):
        Bits(weights=wrong)


def test_one_bit_has_to_be_trained() -> None:
    with pytest.raises(BadArgument, match=r"ends[\s\S]*trained"):
        Scheme(ends=Bits(weights=1))
    with pytest.raises(BadArgument, match=r"conv\*[\s\S]*trained"):
        Scheme(layers={"conv*": Bits(activations=1)})
