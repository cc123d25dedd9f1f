"""Branches are found, removed from the user's modules, and proved against the graph without them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.graph import capture, cost
from gracile.records import Branch, BranchPlan, from_json, to_json
from gracile.surgery import find_branches, prove_removal, remove_branches_
from gracile.zoo import resnet20

X = torch.zeros(1, 3, 16, 16)


class Block(nn.Module):
    """A residual block with a projecting shortcut, a scale and dropped paths, as users write them."""

    def __init__(self, width: int, *, inplace: bool = False, project: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, width, 1),
        )
        self.gamma = nn.Parameter(torch.full((width, 1, 1), 0.5))
        self.project = nn.Conv2d(width, width, 1) if project else nn.Identity()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        y = self.gamma * self.body(x)
        if self.inplace:
            y += self.project(x)
        else:
            y = y + self.project(x)
        return y


class Net(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = Block(8, **options), Block(8, **options)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.one(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize("options", [{}, {"inplace": True}, {"project": True}], ids=str)
def test_removing_a_branch_leaves_its_shortcut(options: dict[str, bool]) -> None:
    model = Net(**options).eval()
    found, skipped = find_branches(model, (X,))
    assert [b.name for b in found] == ["one.body", "two.body"]
    assert not skipped
    assert all(b.whole == options.get("inplace", False) for b in found)
    images = torch.randn(2, 3, 16, 16)
    wanted = model.fc(model.two(model.one.project(model.stem(images))).mean((2, 3)))
    proof = prove_removal(model, (X,), found[:1])
    assert proof.passed
    assert proof.effect > 1e-3
    remove_branches_(model, found[:1])
    torch.testing.assert_close(model(images), wanted)
    model.train()(images).sum().backward()


def test_costs_are_those_that_go() -> None:
    model = Net().eval()
    found, _ = find_branches(model, (X,))
    before = cost(model, (X,))
    remove_branches_(model, found[:1])
    after = cost(model, (X,))
    assert before.macs - after.macs == found[0].macs == 16 * 16 * (16 * 8 * 9 + 8 * 16)
    held = sum(p.numel() for p in Net().one.body.parameters())
    assert found[0].params == held
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in Net().parameters()) - held


def test_option_a_networks_lose_any_branch() -> None:
    model = resnet20().eval()
    found, skipped = find_branches(model, (torch.zeros(1, 3, 32, 32),))
    assert [b.name for b in found] == [f"layer{s}.{i}" for s in (1, 2, 3) for i in range(3)]
    assert not skipped
    images = torch.randn(2, 3, 32, 32)
    proof = prove_removal(model, (images[:1],), [found[1], found[3], found[8]])
    assert proof.passed
    remove_branches_(model, [found[3]])
    seen: list[Tensor] = []
    model.layer2[0].shortcut.register_forward_hook(lambda m, a, out: seen.append(out))
    model.layer2[1].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model(images)
    torch.testing.assert_close(seen[1], seen[0].relu())


def test_the_graph_of_what_is_left_has_no_trace_of_it() -> None:
    model = resnet20().eval()
    found, _ = find_branches(model, (torch.zeros(1, 3, 32, 32),))
    remove_branches_(model, [found[1]])
    graph = capture(model, (torch.zeros(1, 3, 32, 32),)).graph
    names = [str(n.target) for n in graph.nodes if n.op == "call_function"]
    assert sum("conv2d" in n for n in names) == 17
    assert sum("add." in n for n in names) == 8
    assert not any("zeros" in n for n in names)


class Tangled(nn.Module):
    """The summand is read elsewhere too; another is made without a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.weight = nn.Parameter(torch.randn(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        x = x + y
        x = x + nn.functional.conv2d(x, self.weight)
        return (x + y).mean((2, 3))


def test_what_others_read_is_no_branch_and_what_has_no_module_is_left_with_its_line() -> None:
    found, skipped = find_branches(Tangled().eval(), (X,))
    assert not found
    assert {s.why for s in skipped} == {"no module gives this summand"}
    assert "self.weight" in skipped[0].source


class Strict(nn.Module):
    """Code that names the shape that it expects."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, ::2, ::2]
        y = self.norm(self.conv(x)).view(1, 3, 64).transpose(1, 2)
        return (x + y.transpose(1, 2).view(1, 3, 8, 8)).mean((2, 3))


def test_code_that_needs_the_whole_shape_gets_whole_zeros() -> None:
    found, _ = find_branches(Strict().eval(), (X,))
    assert [b.whole for b in found] == [True]


def test_code_that_fails_without_the_branch_is_left_alone_with_the_reason() -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::2, ::2] + self.conv(x).view(1, 3, 8, 8)

    found, skipped = find_branches(Strided().eval(), (X,))
    assert not found
    assert "own code fails without it" in skipped[0].why
    assert "self.conv(x).view" in skipped[0].source


def test_the_optimizer_forgets_what_is_gone_and_goes_on() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(4, 3, 16, 16)
    model(images).square().sum().backward()
    optimizer.step()
    found, _ = find_branches(model, (X,))
    kept = copy.deepcopy(optimizer.state[model.stem.weight]["momentum_buffer"])
    remove_branches_(model, found[1:], optimizer)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}
    assert {id(p) for p in optimizer.state} <= {id(p) for p in model.parameters()}
    assert torch.equal(optimizer.state[model.stem.weight]["momentum_buffer"], kept)
    optimizer.zero_grad()
    model(images).square().sum().backward()
    optimizer.step()


def test_another_model_is_refused_and_left_alone() -> None:
    model = Net()
    before = {name: id(m) for name, m in model.named_modules()}
    gone = Branch(name="x", end="three.body", rank=4, inner=("one.body",))
    with pytest.raises(BadArgument, match=r"three\.body"):
        remove_branches_(model, [gone])
    assert before == {name: id(m) for name, m in model.named_modules()}
    with pytest.raises(BadArgument, match="a residual branch"):
        prove_removal(model, (X,), [Branch(name="fc", end="fc", rank=2)])


def test_a_plan_is_plain_data() -> None:
    found, skipped = find_branches(Net().eval(), (X,))
    plan = BranchPlan(removed=found[:1], kept=("two.body",), divergence=(0.5,), skipped=skipped, budget="one")
    assert from_json(BranchPlan, to_json(plan)) == plan
    assert "remove one.body, divergence 0.5" in str(plan)
