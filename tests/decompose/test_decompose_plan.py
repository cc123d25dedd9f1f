"""Plans: budgets met, what does not pay left dense, surgery proved on networks of every kind."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gracile import decompose
from gracile.decompose import CP, SVD, Bytes, Energy, Macs, Params, Spatial, Tucker
from gracile.decompose.planning import _priced, options_of
from gracile.decompose.survey import survey
from gracile.errors import BadArgument, BudgetError, NonFiniteError
from gracile.graph import cost
from gracile.records import DecomposePlan, from_json, to_json
from gracile.testing import NETS, net


def low_rank(model: nn.Module) -> nn.Module:
    """Weights whose singular values fall steeply, so that there is something to gain."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and getattr(module, "groups", 1) == 1:
                left, values, right = torch.linalg.svd(module.weight.flatten(1), full_matrices=False)
                values = values * 0.4 ** torch.arange(len(values))
                module.weight.copy_((left * values @ right).reshape(module.weight.shape))
    return model


class Nets(nn.Module):
    """Two layers, one called twice, one with a shared weight, one grouped, one at several positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.twice = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, groups=4)
        self.rows = nn.Linear(36, 20)
        self.head = nn.Linear(20, 20)
        self.tied = nn.Linear(20, 20)
        self.tied.weight = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.twice(torch.relu(self.twice(torch.relu(self.first(x))))))
        x = self.rows(self.grouped(x).flatten(2)).mean(1)
        out: Tensor = self.tied(torch.relu(self.head(x)))
        return out


@pytest.fixture
def own() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return low_rank(Nets()).eval(), (torch.randn(1, 3, 8, 8),)


@pytest.mark.parametrize("name", NETS)
def test_budgets_are_met_and_costs_are_those_counted(name: str) -> None:
    model, inputs = net(name)
    low_rank(model)
    every = decompose.plan(model, inputs, budget=Energy(kept=0.01))
    share = max(0.75, every.macs_after / every.macs_before)  # networks of grouped layers have little to give
    plan = decompose.plan(model, inputs, budget=Macs(fraction_kept=share))
    small = decompose.apply(model, plan)
    assert plan.macs_after <= share * plan.macs_before
    after = cost(small, inputs)
    assert (after.macs, after.params) == (plan.macs_after, plan.params_after)
    proof = decompose.prove(model, small, plan, inputs)
    assert proof.passed
    assert proof.effect > 10 * proof.error
    assert from_json(DecomposePlan, to_json(plan)) == plan


@pytest.mark.parametrize("budget", [Params(fraction_kept=0.7), Bytes(at_most=4000, weight_bits=8)])
def test_other_budgets(own, budget) -> None:
    model, inputs = own
    plan = decompose.plan(model, inputs, budget=budget)
    small = decompose.apply(model, plan)
    if isinstance(budget, Bytes):
        assert budget.of(cost(small, inputs)) <= 4000 < budget.of(cost(model, inputs))
    else:
        assert cost(small, inputs).params <= 0.7 * cost(model, inputs).params


def test_energy_takes_the_lowest_rank_that_keeps_it() -> None:
    layer = nn.Linear(30, 20, bias=False)
    model, x = nn.Sequential(layer), torch.zeros(1, 30)
    with torch.no_grad():
        a, b = torch.linalg.qr(torch.randn(30, 5))[0], torch.linalg.qr(torch.randn(20, 5))[0]
        layer.weight.copy_(b * torch.tensor([4.0, 2.0, 1.0, 0.5, 0.1]) @ a.T)
    total = 16 + 4 + 1 + 0.25 + 0.01
    for kept, rank in ((0.7, 1), (0.93, 2), (0.98, 4), (0.9999, 5)):
        (one,) = decompose.plan(model, (x,), budget=Energy(kept=kept)).layers
        tried = [r for (r,) in SVD().ranks((20, 30))]
        assert one.ranks[0] == min(r for r in tried if r >= rank)
        assert one.error <= 1 - kept
    assert total == pytest.approx(float(layer.weight.detach().square().sum()), rel=1e-4)


def test_what_cannot_be_factored_is_said(own) -> None:
    model, inputs = own
    plan = decompose.plan(model, inputs, budget=Macs(fraction_kept=0.7), leave=["first"])
    why = {skip.where: skip.why for skip in plan.skipped}
    assert why["grouped"] == "it works in 4 groups"
    assert "other modules" in why["head"]
    assert "left alone" in why["first"]
    assert {one.layer for one in plan.layers} <= {"twice", "rows"}
    twice = next(one for one in plan.layers if one.layer == "twice")
    assert twice.macs_before == 2 * 16 * 16 * 9 * 64


def test_too_small_a_budget_names_what_can_be_reached(own) -> None:
    model, inputs = own
    with pytest.raises(BudgetError, match="is the least") as caught:
        decompose.plan(model, inputs, budget=Macs(fraction_kept=0.01))
    least = int(caught.value.found.split()[1].replace(",", ""))
    whole = cost(model, inputs).macs
    plan = decompose.plan(model, inputs, budget=Macs(fraction_kept=(least + 1) / whole))
    assert plan.macs_after == least


def test_the_choice_is_near_the_best_of_all() -> None:
    """Brute force over three layers of four options each."""
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        errors = {n: sorted(torch.rand(4, generator=draw).tolist()) for n in "abc"}
        costs = {n: [-c for c in sorted(torch.randint(0, 100, (4,), generator=draw).tolist())] for n in "abc"}
        for n in "abc":
            errors[n][0], costs[n][0] = 0.0, 0
        spare = -150 if sum(min(c) for c in costs.values()) <= -150 else 0
        places = _priced(errors, costs, spare)
        assert sum(costs[n][p] for n, p in places.items()) <= spare
        best = min(
            sum(errors[n][p] for n, p in zip("abc", tried, strict=True))
            for tried in itertools.product(range(4), repeat=3)
            if sum(costs[n][p] for n, p in zip("abc", tried, strict=True)) <= spare
        )
        found = sum(errors[n][p] for n, p in places.items())
        assert found <= best + max(max(e) for e in errors.values())
        assert found <= 3 * best + 1e-9 or spare == 0


def test_where_the_runtime_is_not_faster_the_layer_stays_dense(own) -> None:
    model, inputs = own
    asked: list[tuple[str, tuple[int, ...]]] = []

    def timer(name: str, layer: nn.Module, small: nn.Module, shape: tuple[int, ...]) -> decompose.LayerTime:
        asked.append((name, shape))
        x = torch.zeros(2, *shape)
        assert small(x).shape == layer(x).shape
        after = 2.0 if name == "twice" else 0.5
        return decompose.LayerTime(dense=1.0, factored=after, faster=after < 1.0)

    plan = decompose.plan(model, inputs, budget=Energy(kept=0.9), timer=timer)
    assert "twice" not in {one.layer for one in plan.layers}
    assert "factored it takes 2 ms instead of 1" in {skip.where: skip.why for skip in plan.skipped}["twice"]
    assert all(one.milliseconds == (1.0, 0.5) for one in plan.layers)
    assert ("twice", (16, 8, 8)) in asked
    assert len(asked) == len({name for name, _ in asked})  # what is known is not timed again
    assert ("rows", (16, 36)) in asked


def test_data_keeps_the_outputs_nearer_than_weights_alone(own) -> None:
    model, inputs = own
    mix = torch.randn(3, 3)
    images = torch.einsum("nihw,ij->njhw", torch.randn(96, 3, 8, 8), mix) + 1.0
    errors = []
    for data in (None, images[:64]):
        plan = decompose.plan(model, inputs, budget=Macs(fraction_kept=0.25), calibration=data)
        small = decompose.apply(model, plan, inputs=inputs, calibration=data)
        with torch.no_grad():
            errors.append(float((small(images[64:]) - model(images[64:])).square().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_the_mean_output_is_kept() -> None:
    """Whatever the rank: what the factors lose of the mean goes into the bias."""
    layer = nn.Linear(12, 6, bias=False)
    model, x = nn.Sequential(layer), torch.randn(500, 12) + 3
    plan = decompose.plan(model, (x[:1],), budget=Macs(fraction_kept=0.5), calibration=x)
    small = decompose.apply(model, plan, inputs=(x[:1],), calibration=x)
    with torch.no_grad():
        assert torch.allclose(small(x).mean(0), model(x).mean(0), atol=1e-4)
    shape = decompose.apply_structure(model, plan)
    shape.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(shape(x), small(x))


def test_every_form_survives_the_round_trip(own) -> None:
    model, inputs = own
    for form in (SVD(), Spatial(), Tucker(), CP()):
        plan = decompose.plan(model, inputs, budget=Macs(fraction_kept=0.8), forms=(form,))
        small = decompose.apply(model, plan)
        assert {one.form for one in plan.layers} == {form.name}
        assert decompose.prove(model, small, plan, inputs).passed
        shape = decompose.apply_structure(model, plan)
        shape.load_state_dict(small.state_dict())
        assert torch.equal(shape(*inputs), small(*inputs))


def test_options_are_cheaper_than_the_layer() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3))
    seen = survey(model, (torch.zeros(1, 8, 6, 6),))["0"]
    dense, *others = options_of(seen, (SVD(), Spatial(), Tucker()))
    assert others
    assert all(o.macs < dense.macs or o.params < dense.params for o in others)


def test_errors_say_what_to_do(own) -> None:
    model, inputs = own
    with pytest.raises(BadArgument, match="names of layers"):
        decompose.plan(model, inputs, budget=Energy(kept=0.9), leave=["frist"])
    with pytest.raises(BadArgument, match="kept"):
        Energy(kept=1.0)
    plan = decompose.plan(model, inputs, budget=Macs(fraction_kept=0.7), calibration=torch.randn(8, 3, 8, 8))
    with pytest.raises(BadArgument, match="calibration"):
        decompose.apply(model, plan)
    with pytest.raises(BadArgument, match="plan of this model"):
        decompose.apply(nn.Linear(3, 3), plan, inputs=inputs, calibration=torch.randn(8, 3, 8, 8))
    with pytest.raises(BadArgument, match="at least one input"):
        decompose.plan(model, inputs, budget=Energy(kept=0.9), calibration=[])
    with torch.no_grad():
        model.first.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="first"):
        decompose.plan(model, inputs, budget=Energy(kept=0.9))


class Alias(nn.Module):
    """Layers run by their second name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 8)
        self.body = nn.Sequential(self.first, nn.ReLU(), self.second)

    def forward(self, x: Tensor) -> dict[str, Tensor | tuple[Tensor, ...]]:
        y = self.body(x)
        return {"y": y, "more": (y > 0, y.exp())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_with_two_names_is_factored_under_both(dtype: torch.dtype) -> None:
    model, inputs = Alias().eval().to(dtype), (torch.randn(1, 32, dtype=dtype),)
    plan = decompose.plan(model, inputs, budget=Macs(fraction_kept=0.6))
    assert [one.layer for one in plan.layers] == ["first"]
    for made in (decompose.apply(model, plan), decompose.apply_structure(model, plan)):
        assert made.first is made.body[0]
        after = cost(made, inputs)
        assert (after.macs, after.params) == (plan.macs_after, plan.params_after)
        assert after.params == sum(p.numel() for p in made.parameters())
    proof = decompose.prove(model, decompose.apply(model, plan), plan, inputs)
    assert proof.passed
    assert proof.effect > 1e-3
    assert decompose.sensitivity(model, inputs, torch.randn(64, 32, dtype=dtype))["first"] > 0


def test_a_proof_finds_a_wrong_factor() -> None:
    model, inputs = Alias().eval(), (torch.randn(1, 32),)
    plan = decompose.plan(model, inputs, budget=Energy(kept=0.5))
    small = decompose.apply(model, plan)
    wrong = small.first[0]
    small.first[0] = nn.Sequential(wrong, nn.Hardtanh(-1e-3, 1e-3))
    small.first[0].get_parameter = wrong.get_parameter
    assert not decompose.prove(model, small, plan, inputs).passed


def test_a_layer_may_be_the_whole_model() -> None:
    model, inputs = low_rank(nn.Linear(16, 16)).eval(), (torch.randn(1, 16),)
    plan = decompose.plan(model, inputs, budget=Energy(kept=0.9))
    small = decompose.apply(model, plan)
    assert isinstance(small, nn.Sequential)
    assert cost(small, inputs).params == plan.params_after < plan.params_before
    assert decompose.prove(model, small, plan, inputs).passed
    small.load_state_dict(decompose.apply_structure(model, plan).state_dict())


class Places(nn.Module):
    """Layers at several sizes and on flattened batches."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(3, 16, 3, padding=1)
        self.frames = nn.Conv2d(16, 16, 3, padding=1)
        self.tokens = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        small = self.shared(nn.functional.avg_pool2d(x, 2))
        big = nn.functional.avg_pool2d(self.shared(x), 2)
        count, channels, height, width = small.shape
        frames = torch.stack([small, big], 1).reshape(count * 2, channels, height, width)
        rows = self.frames(frames).permute(0, 2, 3, 1).reshape(-1, channels)
        return self.tokens(rows).reshape(count, -1, channels).mean(1)


@pytest.mark.parametrize("batch", [1, 2])
def test_costs_are_counted_call_by_call(batch: int) -> None:
    model, inputs = low_rank(Places()).eval(), (torch.randn(batch, 3, 8, 8),)
    before = {layer.name: layer.macs for layer in cost(model, inputs).layers}
    plan = decompose.plan(model, inputs, budget=Energy(kept=0.9))
    assert {one.layer for one in plan.layers} == {"shared", "frames", "tokens"}
    assert plan.macs_after == cost(decompose.apply(model, plan), inputs).macs
    found = {one.layer: one.macs_before for one in plan.layers}
    assert (found["frames"], found["tokens"]) == (before["frames"], before["tokens"])
    calls = {name: one.calls for name, one in survey(model, inputs).items()}
    assert calls == {"shared": 1 + 4, "frames": 2, "tokens": 1}  # in images of the first call


def test_data_of_a_loader_on_a_model_with_padding_by_name() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.named = nn.Conv2d(3, 8, 3, padding="same")
            self.mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
            self.plain = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.plain(self.mirrored(self.named(x.sub_(0.5))))

    images = torch.rand(16, 3, 8, 8)
    loader = DataLoader(TensorDataset(images), batch_size=8)
    kept = images.clone()
    model, inputs = low_rank(Padded()).eval(), (images[:1],)
    plan = decompose.plan(model, inputs, budget=Energy(kept=0.9), calibration=loader)
    assert [one.layer for one in plan.layers] == ["plain"]
    assert {s.where: s.why for s in plan.skipped} == {
        "named": "its padding is 'same'",
        "mirrored": "its padding is 'reflect'",
    }
    assert torch.equal(images, kept)


def test_few_images_do_not_tell_the_energy_of_many_inputs() -> None:
    """A rank of eight would keep all energy of eight images, and nothing of others."""
    model, x = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 40)).eval(), torch.randn(96, 64)
    few = decompose.plan(model, (x[:1],), budget=Energy(kept=0.99), calibration=x[:8])
    assert few.layers == ()
    assert {skip.where: skip.why for skip in few.skipped} == {
        "0": "8 rows of calibration data cannot tell the energy of 64 inputs",
        "2": "8 rows of calibration data cannot tell the energy of 48 inputs",
    }
    enough = decompose.plan(low_rank(model), (x[:1],), budget=Energy(kept=0.9), calibration=x)
    assert {one.layer for one in enough.layers} == {"0", "2"}
    assert decompose.plan(model, (x[:1],), budget=Macs(fraction_kept=0.5), calibration=x[:8]).layers
