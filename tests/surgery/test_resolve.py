"""Removals that the model's own code cannot carry are found, left out and explained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.graph import capture, trace
from gracile.records import PrunePlan
from gracile.surgery import apply, probe, resolve
from gracile.testing.nets import NETS, net


@pytest.mark.parametrize("name", NETS)
def test_every_group_of_the_tiny_networks_can_go_by_unequal_parts(name: str) -> None:
    model, inputs = net(name)
    done = probe(model, inputs, trace(capture(model, inputs)), seed=3)
    assert not done.skipped
    assert all(done.removed.values())


class Hard(nn.Module):
    """A number written into ``forward`` that removal contradicts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.a(x))))
        out: Tensor = self.c(x.view(-1, 96))
        return out


def test_a_constant_in_forward_freezes_its_group_with_the_line() -> None:
    model, inputs = Hard(), (torch.randn(1, 3, 8, 8),)
    found = trace(capture(model, inputs))
    done = resolve(model, inputs, found, {"a": [0], "b": [0, 1]})
    assert set(done.removed) == {"a"}
    (skip,) = done.skipped
    assert skip.where == "b"
    assert "own code fails" in skip.why
    assert "test_resolve.py" in skip.source
    apply(model, PrunePlan(groups=(), slices=done.slices, attributes=done.attributes))(*inputs)


class Halves(nn.Module):
    """Cuts in halves whatever comes, with unequal readers: unequal removal would cut elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1)
        half = joined.shape[1] // 2
        y = torch.cat([self.left(joined[:, :half]), self.right(joined[:, half:])], 1)
        out: Tensor = self.fc(y.mean((2, 3)))
        return out


def test_code_that_cuts_at_its_own_place_is_found_by_the_proof() -> None:
    model, inputs = Halves(), (torch.randn(1, 3, 4, 4),)
    found = trace(capture(model, inputs))
    done = resolve(model, inputs, found, {"a": [0, 1], "b": [], "left": [1]})
    assert "a" not in done.removed
    assert set(done.removed) == {"left"}
    assert done.skipped[0].where == "a"
    equal = resolve(model, inputs, found, {"a": [0], "b": [3]})
    assert set(equal.removed) == {"a", "b"}
    assert not equal.skipped


class Twins(nn.Module):
    """Two attributes with the same number, of which one must change."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.per_head = 4, 4
        self.qkv, self.out = nn.Linear(8, 48), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(1, 3, 3, self.heads, self.per_head).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.out(y.mean(1))
        return out


def test_the_right_one_of_two_equal_attributes_is_found_by_trying() -> None:
    model, inputs = Twins(), (torch.randn(1, 3, 8),)
    found = trace(capture(model, inputs))
    done = resolve(model, inputs, found, {"qkv": [1, 2]})
    assert not done.skipped
    assert [(e.attribute, e.old, e.new) for e in done.attributes] == [("heads", 4, 2)]


class Scaled(nn.Module):
    """A width that enters as a plain number: shapes fit after a removal, values do not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.relu(self.a(x)))
        x = self.c(F.relu(x) / x.shape[1])
        out: Tensor = self.d(F.relu(x))
        return out


def test_a_width_used_as_a_number_is_found_by_halving() -> None:
    model, inputs = Scaled(), (torch.randn(1, 6),)
    found = trace(capture(model, inputs))
    done = resolve(model, inputs, found, {"a": [0], "b": [1, 2], "c": [3]})
    assert set(done.removed) == {"a", "c"}
    (skip,) = done.skipped
    assert skip.where == "b"
    assert "computes something else" in skip.why
