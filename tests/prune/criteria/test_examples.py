"""Labelled examples, predictions and losses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gracile import prune
from gracile.errors import BadArgument, UnsupportedOperation
from gracile.prune.criteria.examples import cross_entropy, labelled_chunks, logits, predicted


def test_labelled_batches_of_any_size_become_batches_of_one_size() -> None:
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    pairs = [(x[:3], y[:3]), ((x[3:],), y[3:])]
    for given in ((x, y), pairs, iter(pairs)):
        found = labelled_chunks(given, 4)
        assert [len(targets) for _, targets in found] == [4, 4]
        assert all(torch.equal(inputs[0][:, 0].long(), targets) for inputs, targets in found)


def test_inputs_without_target_are_refused() -> None:
    with pytest.raises(BadArgument, match="one target for each input, found 3 inputs and 2 targets"):
        labelled_chunks((torch.zeros(3, 1), torch.zeros(2)), 2)
    with pytest.raises(BadArgument, match="at least one input"):
        labelled_chunks([], 2)


def test_predictions_are_those_of_evaluation_mode() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9)).train()
    x = torch.randn(6, 3)
    ((inputs, targets),) = predicted(net, [(x,)])
    assert torch.equal(targets, net[0](x).argmax(1))
    assert inputs[0] is x
    assert net.training
    assert net[1].training


def test_cross_entropy_is_one_number_an_example() -> None:
    outputs, targets = torch.randn(4, 3, 5, 2), torch.randint(0, 3, (4, 5, 2))
    wanted = [nn.functional.cross_entropy(o[None], t[None]) for o, t in zip(outputs, targets, strict=True)]
    torch.testing.assert_close(cross_entropy(outputs, targets), torch.stack(wanted))


def test_outputs_that_are_no_logits_are_refused(residual, inputs, data) -> None:
    assert logits((data,)) is data
    for outputs in ({"a": data}, torch.zeros(3), (data, data)):
        with pytest.raises(UnsupportedOperation, match="one tensor of outputs"):
            logits(outputs)


def test_a_plan_takes_labelled_data_and_a_loss_of_ones_own(residual, inputs, data, labels) -> None:
    half = prune.PerLayer(ratio=0.5)

    def plan(**given):
        return prune.plan(residual, inputs, criterion=prune.Taylor(), budget=half, **given)

    with torch.no_grad():
        own = residual(data).argmax(1)
    kept = [
        tuple(g.keep for g in plan(**given).groups)
        for given in (
            {"calibration": data},
            {"labelled": (data, own)},
            {"labelled": (data, labels)},
            {"labelled": (data, labels), "loss": lambda o, t: o[:, 0] * 3},
        )
    ]
    assert kept[0] == kept[1]
    assert len(set(kept)) == 3
    with pytest.raises(BadArgument, match="labelled= or calibration="):
        plan()
