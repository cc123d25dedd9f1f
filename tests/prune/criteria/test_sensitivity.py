"""Curves are those of the model narrowed by hand; costs follow them; the file is read only when it fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.graph import capture, trace
from gracile.prune import L1, Macs, Scene, Sensitivity, plan
from gracile.prune.criteria import sensitivity as module
from gracile.prune.criteria.sensitivity import measured
from gracile.records import SensitivityTable, from_json, to_json

DATA = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))


def make() -> nn.Sequential:
    """Of the second hidden layer only one unit, the largest, is heard."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        net[4].weight.mul_(4.0)[:, 1:].mul_(0.01)
        net[2].weight[0].mul_(5.0)
    return net.eval()


def scene(model: nn.Module, labels: Tensor | None = None) -> Scene:
    found = trace(capture(model, (DATA[:1],)))
    batch = (DATA,)
    return Scene(
        model=model,
        provenance=found,
        groups=found.groups,
        calibration=() if labels is not None else (batch,),
        labelled=((batch, labels),) if labels is not None else (),
    )


def test_a_point_is_the_divergence_of_the_narrowed_network() -> None:
    model = make()
    at = scene(model)
    ranks = L1()(at)
    table = measured(at, ranks, (0.5,), "l1")
    assert [(g.name, g.units, g.points[0]) for g in table.groups] == [("0", 8, (8, 0.0)), ("2", 8, (8, 0.0))]
    gone = np.argsort(ranks["0"])[:4]
    with torch.no_grad():
        hidden = model[1](model[0](DATA))
        hidden[:, gone] = 0
        q = model[2:](hidden).softmax(1)
        p = model(DATA).softmax(1)
    wanted = float((p * (p / q).log()).sum(1).mean())
    assert table.groups[0].points[1] == (4, pytest.approx(wanted, rel=1e-2))
    assert (table.metric, table.ranking, table.images) == ("kl", "l1", 40)
    assert from_json(SensitivityTable, to_json(table)) == table
    assert "0 of 8: 8: 0, 4:" in str(table)


def test_with_labels_it_is_the_accuracy_lost() -> None:
    model = make()
    with torch.no_grad():
        labels = model(DATA).argmax(1)
    at = scene(model, labels)
    table = measured(at, L1()(at), (0.875,))
    assert table.metric == "accuracy"
    lost = [group.points[1][1] for group in table.groups]
    assert all(0 <= points <= 100 for points in lost)
    assert max(lost) > 0


def test_scores_rise_and_sum_to_the_curve_where_it_bends_up() -> None:
    ranks = np.array([3.0, 0.0, 1.0, 2.0])
    scores = module._scores(ranks, [(4, 0.0), (2, 1.0), (1, 4.0)])
    leaving = scores[np.argsort(ranks)]
    np.testing.assert_allclose(leaving, [0.5, 0.5, 3.0, 3.0], rtol=1e-6)
    assert (np.diff(leaving) > 0).all()


def test_a_curve_that_falls_or_bends_down_is_straightened() -> None:
    ranks = np.arange(4.0)
    leaving = module._scores(ranks, [(4, 0.0), (3, 2.0), (2, 1.0), (1, 2.5)])
    np.testing.assert_allclose(leaving, [2.0, 2.0, 2.0, 2.0], rtol=1e-6)


def test_what_is_hardly_heard_gives_more() -> None:
    model = make()
    found = plan(model, (DATA[:1],), criterion=Sensitivity(), budget=Macs(fraction_kept=0.6),
                 calibration=DATA, leave=())  # fmt: skip
    kept = {group.name: len(group.keep) for group in found.groups}
    assert kept["2"] < kept["0"]


def test_the_file_is_read_again_for_the_same_analysis_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = make(), tmp_path / "curves.json"
    first = Sensitivity(cache=cache)(scene(model))
    runs: list[int] = []
    real = module.outputs

    def counted(*arguments: object) -> Tensor:
        runs.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "outputs", counted)
    again = Sensitivity(cache=cache)(scene(model))
    assert not runs
    assert all(np.array_equal(first[name], again[name]) for name in first)
    with torch.no_grad():
        model[0].weight.mul_(2)
    Sensitivity(cache=cache)(scene(model))
    assert runs
    runs.clear()
    cache.write_text("{not json")
    Sensitivity(cache=cache)(scene(model))
    assert runs


@pytest.mark.parametrize("ratios", [(), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_ratios_that_cannot_be_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(BadArgument, match="rising"):
        Sensitivity(ratios=ratios)


def test_without_data_it_says_so() -> None:
    model = make()
    found = trace(capture(model, (DATA[:1],)))
    with pytest.raises(BadArgument, match="calibration"):
        Sensitivity()(Scene(model=model, provenance=found, groups=found.groups))


def test_models_of_several_outputs_and_in_half_precision() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = make()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = self.body(x)
            return {"classes": y, "sure": y > 0}

    found = plan(Two().eval(), (DATA[:1],), criterion=Sensitivity(), budget=Macs(fraction_kept=0.6),
                 calibration=DATA, leave=())  # fmt: skip
    assert found.macs_after <= 0.6 * found.macs_before
    half = plan(make().bfloat16(), (DATA[:1].bfloat16(),), criterion=Sensitivity(),
                budget=Macs(fraction_kept=0.6), calibration=DATA.bfloat16(), leave=())  # fmt: skip
    assert half.macs_after <= 0.6 * half.macs_before
