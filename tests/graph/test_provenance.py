"""Which channels go together, on every kind of meeting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.graph import RULES, capture, trace
from gracile.testing.nets import NETS, net

GROUPS = {
    "plain": {"conv1": 8, "conv2": 12, "fc1": 16},
    "residual": {"stem": 8, "conv1": 8, "conv3": 16},
    "concat": {"a": 6, "b": 10, "left": 8, "right": 8},
    "depthwise": {"stem": 8, "expand": 16, "squeeze": 4},
    "grouped": {"stem": 2, "few": 8, "gate": 12},
    "attention": {"patch": 16, "qkv": 4, "up": 32},
    "upsampling": {"down": 8, "up": 6, "mix": 8},
    "sequence": {"conv1": 8, "conv2": 6},
    "volume": {"conv1": 6, "conv2": 8},
}


@pytest.mark.parametrize("name", NETS)
def test_groups_are_the_expected_ones(name: str) -> None:
    model, inputs = net(name)
    found = {g.name: g.units for g in trace(capture(model, inputs)).groups}
    assert found == GROUPS[name]


def _slots(name: str, group: str) -> dict[tuple[str, int], np.ndarray]:
    model, inputs = net(name)
    return {(s.param, s.axis): s.index for s in trace(capture(model, inputs)).group(group).slots}


def test_flatten_gives_every_position_of_a_channel_to_its_unit() -> None:
    index = _slots("plain", "conv2")["fc1.weight", 1]
    assert index.shape == (12, 16)
    assert index[3].tolist() == list(range(48, 64))


def test_option_a_shortcut_ties_the_trunks_with_an_offset() -> None:
    slots = _slots("residual", "stem")
    assert slots["stem.weight", 0][:, 0].tolist() == list(range(8))
    assert slots["conv4.weight", 0][:, 0].tolist() == list(range(4, 12))
    assert slots["fc.weight", 1][:, 0].tolist() == list(range(4, 12))


def test_a_tensor_used_twice_gives_two_positions_per_unit() -> None:
    slots = _slots("concat", "left")
    assert slots["fc.weight", 1].tolist() == [[i, 16 + i] for i in range(8)]
    assert slots["bn.running_var", 0].tolist() == [[i, 16 + i] for i in range(8)]


def test_gate_and_value_of_a_chunk_go_together() -> None:
    slots = _slots("grouped", "gate")
    assert slots["gate.weight", 0].tolist() == [[i, 12 + i] for i in range(12)]


def test_heads_go_whole() -> None:
    slots = _slots("attention", "qkv")
    head = slots["qkv.weight", 0][1].tolist()
    assert head == [*range(4, 8), *range(20, 24), *range(36, 40)]
    assert slots["project.weight", 1][1].tolist() == list(range(4, 8))


def test_token_and_positions_follow_the_width() -> None:
    slots = _slots("attention", "patch")
    assert slots["token", 2][:, 0].tolist() == list(range(16))
    assert slots["position", 2][:, 0].tolist() == list(range(16))


def test_depthwise_weights_follow_and_gates_are_included() -> None:
    model, inputs = net("depthwise")
    group = trace(capture(model, inputs)).group("expand")
    roles = {f"{s.param}:{s.axis}": s.role for s in group.slots}
    assert roles["expand.weight:0"] == "write"
    assert roles["depth.weight:0"] == "along"
    assert roles["excite.weight:0"] == "write"
    assert roles["squeeze.weight:1"] == "read"
    assert roles["bn2.running_mean:0"] == "along"


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.relu(self.a(x)))
        out: Tensor = self.c(torch.sort(x, dim=-1).values)
        return out


def test_an_unknown_operation_freezes_what_it_touches_and_says_so() -> None:
    found = trace(capture(Unknown(), (torch.zeros(1, 4),)))
    assert [g.name for g in found.groups] == ["a"]
    reason = next(s for s in found.frozen if s.where == "b")
    assert "sort" in reason.why
    assert "does not know" in reason.why
    assert "torch.sort(x, dim=-1)" in reason.source


def test_rules_can_be_extended_without_touching_ours() -> None:
    captured = capture(Unknown(), (torch.zeros(1, 4),))

    def sort_like_softmax(ctx, node):  # type: ignore[no-untyped-def]
        return tuple(RULES["softmax"](ctx, node) for _ in range(2))

    found = trace(captured, RULES | {"sort": sort_like_softmax})
    assert "softmax" not in {s.why for s in found.frozen}
    assert "sort" not in RULES
    assert any("sort runs over it" in s.why for s in found.frozen)


def test_outputs_and_padding_stay() -> None:
    model, inputs = net("residual")
    frozen = {s.where: s.why for s in trace(capture(model, inputs)).frozen}
    assert frozen["fc"] == "is an output of the network"
    assert frozen["conv4"].startswith("50% of its channels: meets values that stay")


def test_modules_that_only_train_are_named() -> None:
    class Helped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
            self.helper = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.a(x))
            out: Tensor = self.b(x) + self.helper(x) if self.training else self.b(x)
            return out

    found = trace(capture(Helped(), (torch.zeros(1, 4),)))
    assert [g.name for g in found.groups] == ["a"]
    assert [s.where for s in found.frozen if "evaluation mode" in s.why] == ["helper"]


def test_an_unknown_group_is_refused() -> None:
    model, inputs = net("plain")
    with pytest.raises(BadArgument, match="one of 3 groups"):
        trace(capture(model, inputs)).slices({"nowhere": [0]})


@pytest.mark.parametrize("name", NETS)
def test_expected_shapes_are_those_of_the_narrowed_model(name: str) -> None:
    from gracile.records import PrunePlan
    from gracile.surgery import apply, edits

    model, inputs = net(name)
    found = trace(capture(model, inputs))
    removed = {g.name: range(0, g.units, 2) for g in found.groups}
    gone = found.gone(removed)
    plan = PrunePlan(groups=(), slices=found.slices(removed), attributes=edits(model, found, gone))
    again = capture(apply(model, plan), inputs)
    old = [n for n in found.captured.graph.nodes if n.op == "call_function"]
    new = [n for n in again.graph.nodes if n.op == "call_function"]
    assert [str(n.target) for n in old] == [str(n.target) for n in new]
    shrunk = 0
    for a, b in zip(old, new, strict=True):
        if isinstance(a.meta["val"], Tensor):
            kept = found.kept(a.name, gone)
            wanted = [kept[i].size if i in kept else s for i, s in enumerate(a.meta["val"].shape)]
            assert wanted == list(b.meta["val"].shape), a.name
            shrunk += bool(kept)
    assert shrunk > 4


@pytest.mark.parametrize("meet", [torch.max, torch.min, torch.maximum])
def test_the_larger_of_two_is_taken_element_by_element(meet) -> None:
    class Meet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(meet(self.a(x), self.b(x)))

    found = trace(capture(Meet(), (torch.zeros(1, 3, 4, 4),)))
    assert {g.name: g.units for g in found.groups} == {"a": 6}
    assert "head.weight:1" in found.groups[0].members


def test_tracing_leaves_random_numbers_as_they_were() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn(4)

    captured = capture(Noisy(), (torch.zeros(1, 4),))
    before = torch.get_rng_state()
    trace(captured)
    assert torch.equal(torch.get_rng_state(), before)
