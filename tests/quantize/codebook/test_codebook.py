"""Shared weights: how many values, what stays zero, what calibration gains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gracile import pack, prune, quantize
from gracile.errors import BadArgument, NonFiniteError
from gracile.quantize.codebook.fit import fit_output, fit_values
from gracile.records import CodebookPlan, ParamCodebook, from_json, to_json
from gracile.testing import net
from gracile.testing.contract import fingerprint, same_numbers


def images(inputs: tuple[Tensor, ...], count: int = 48) -> Tensor:
    """Unlabelled images."""
    return torch.randn(count, *inputs[0].shape[1:], generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", ["plain", "depthwise", "attention", "sequence"])
@pytest.mark.parametrize("data", [False, True])
def test_values_are_few_and_the_plan_makes_the_model_again(name: str, data: bool) -> None:
    model, inputs = net(name)
    before = fingerprint(model)
    calibration = images(inputs).split(16) if data else None
    shared, plan = quantize.codebook(model, inputs, 2, calibration=calibration)
    assert fingerprint(model) == before
    assert plan.layers
    named = dict(shared.named_parameters())
    for entry in plan.layers:
        values = named[entry.param].unique()
        assert len(values) <= 4
        assert set(values.tolist()) <= set(entry.centroids)
    again = from_json(CodebookPlan, to_json(plan))
    assert again == plan
    assert same_numbers(quantize.apply_codebook(model, again), shared)
    assert same_numbers(quantize.codebook(model, inputs, 2, calibration=calibration)[0], shared)


@pytest.mark.parametrize("data", [False, True])
def test_zeros_stay_and_take_a_value_of_their_own(data: bool) -> None:
    model, inputs = net("plain")
    masks = prune.mask_plan(model, inputs, sparsity=0.6, leave=())
    pruned = prune.apply_masks(model, masks)
    calibration = images(inputs).split(16) if data else None
    shared, plan = quantize.codebook(pruned, inputs, 3, calibration=calibration)
    before, after = dict(pruned.named_parameters()), dict(shared.named_parameters())
    for entry in plan.layers:
        assert bool((after[entry.param][before[entry.param] == 0] == 0).all())
        assert 0.0 in entry.centroids
        assert len(entry.centroids) <= 8


def test_calibration_keeps_outputs_nearer() -> None:
    torch.manual_seed(0)
    mixed = torch.randn(12, 12)
    data = torch.randn(256, 12) @ mixed  # inputs that are correlated: an error can be made up for
    layer = nn.Linear(12, 8)
    errors = []
    for calibration in (None, [data]):
        shared, _ = quantize.codebook(layer, (data[:1],), 2, calibration=calibration)
        errors.append(float((shared(data) - layer(data)).detach().square().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_the_reported_error_is_that_of_the_output() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(2, 5, 6), torch.randn(2, 300, 6)
    moments = x.mT @ x / 300
    fitted = fit_output(weight, moments, 2, "linear", 0, rounds=3, damping=0.01)
    lost, whole = x @ (weight - fitted.weight).mT, x @ weight.mT
    assert fitted.error == pytest.approx(float(lost.square().sum() / whole.square().sum()), rel=1e-3)
    one = fit_output(weight, moments, 2, "linear", 0, rounds=1, damping=0.01)
    assert fitted.error <= one.error


def test_a_bias_makes_up_for_the_mean() -> None:
    torch.manual_seed(0)
    data = torch.randn(512, 6) + 3
    layer = nn.Linear(6, 4)
    shared, plan = quantize.codebook(layer, (data[:1],), 1, calibration=[data])
    assert plan.layers[0].bias == "bias"
    torch.testing.assert_close(shared(data).mean(0), layer(data).mean(0), atol=0.05, rtol=0.05)


def test_as_many_values_as_weights_lose_nothing() -> None:
    weight = torch.tensor([[0.1, -0.7], [0.0, 0.3]])
    fitted = fit_values(weight, 2, "density", 0)
    assert torch.equal(fitted.weight, weight)
    assert fitted.error == 0


def test_bits_of_layers_and_of_biases() -> None:
    model, inputs = net("plain")
    how = quantize.Clustering(layers={"fc*": 1, "fc2": 3}, bias_bits=2)
    shared, plan = quantize.codebook(model, inputs, 4, clustering=how)
    bits = {entry.param: entry.bits for entry in plan.layers}
    assert (bits["conv1.weight"], bits["fc1.weight"], bits["fc2.weight"]) == (4, 1, 3)
    assert bits["fc1.bias"] == 2
    assert len(shared.fc1.bias.unique()) <= 4
    assert len(shared.fc1.weight.unique()) == 2
    assert "fc1.weight  1 bits, 2 values" in str(plan)


def test_what_no_layer_reads_is_listed() -> None:
    model, inputs = net("attention")
    _, plan = quantize.codebook(model, inputs, 4)
    assert {"token", "position"} <= {skipped.where for skipped in plan.skipped}


def test_a_packed_codebook_takes_its_bits(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(256, 256, bias=False))
    shared, _ = quantize.codebook(model, (torch.zeros(1, 256),), 3)
    pack.save(shared, tmp_path / "shared.gracile", (torch.zeros(1, 256),))
    assert (tmp_path / "shared.gracile").stat().st_size < 256 * 256 * 3 / 8 + 600
    assert same_numbers(
        pack.load(tmp_path / "shared.gracile", into=nn.Sequential(nn.Linear(256, 256, bias=False))), shared
    )


def test_what_cannot_be_is_refused() -> None:
    model, inputs = net("plain")
    for bits in (0, 9, 2.5):
        with pytest.raises(BadArgument, match="1 to 8"):
            quantize.codebook(model, inputs, bits)
    with pytest.raises(BadArgument, match="at least one input"):
        quantize.codebook(model, inputs, 2, calibration=[])
    for wrong in ({"start": "best"}, {"bias_bits": 9}, {"layers": {"a": 0}}, {"rounds": 0}, {"damping": 0.0}):
        with pytest.raises(BadArgument):
            quantize.Clustering(**wrong)
    _, plan = quantize.codebook(model, inputs, 2)
    with pytest.raises(BadArgument, match="as in the plan"):
        quantize.apply_codebook(net("residual")[0], plan)
    entry = plan.layers[0]
    for change in ({"codes": "!"}, {"centroids": entry.centroids[:1]}):
        with pytest.raises(BadArgument, match="codes"):
            quantize.apply_codebook(model, replace(plan, layers=(replace(entry, **change),)))
    with pytest.raises(BadArgument, match="rising"):
        ParamCodebook(param="w", shape=(1,), bits=1, centroids=(1.0, 0.0), codes="")
    with pytest.raises(BadArgument, match="several for"):
        CodebookPlan(layers=(entry, entry))
    model.fc1.weight.data[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="fc1"):
        quantize.codebook(model, inputs, 2)
