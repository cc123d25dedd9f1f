"""Training through ``torch.compile``: the same weights as without, and an honest refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.tune import TuneConfig, fit

CONFIG = TuneConfig(epochs=2, lr=0.05, batch_size=16, bf16=False, holdout=0.25, compile="aot_eager")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def _examples() -> TensorDataset:
    images = torch.randn(96, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    return TensorDataset(images, (images.mean((1, 2, 3)) > 0).long())


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)
    ).eval()


def test_the_weights_are_those_of_plain_training() -> None:
    plain, net = _net(), _net()
    history = fit(net, _examples(), CONFIG)
    expected = fit(plain, _examples(), replace(CONFIG, compile=None))
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, plain.state_dict()[name], msg=name)
    assert history.best.train_loss == pytest.approx(expected.best.train_loss, rel=1e-4)
    assert not net.training
    assert type(net) is nn.Sequential
    assert "_compiled_call_impl" not in vars(net) or net._compiled_call_impl is None


def test_steps_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else is: the held-out part is judged as ever."""
    ran = []
    compile_ = torch.compile

    def spy(model: nn.Module, *, backend: str) -> object:
        run = compile_(model, backend=backend)
        return lambda images: ran.append((model.training, backend)) or run(images)  # type: ignore[func-returns-value]

    monkeypatch.setattr(torch, "compile", spy)
    history = fit(_net(), _examples(), CONFIG)
    assert ran == [(True, "aot_eager")] * sum(epoch.steps for epoch in history.epochs)


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: object, examples: object) -> object:
        raise RuntimeError("no compiler on this machine")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, backend: compile_(model, backend=broken))
    with pytest.raises(UnsupportedOperation, match="no compiler on this machine") as caught:
        fit(_net(), _examples(), CONFIG)
    assert "compile=None" in caught.value.do


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(BadArgument, match="inductor"):
        TuneConfig(compile="fast")
