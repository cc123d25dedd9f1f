"""A configuration refuses what cannot be, naming the field, and survives JSON."""

from __future__ import annotations

from typing import Any

import pytest

from gracile.errors import BadArgument
from gracile.records import from_json, to_json
from gracile.tune import TuneConfig


@pytest.mark.parametrize(
    "field",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": -1.0},
        {"optimizer": "rmsprop"},
        {"schedule": "linear"},
        {"momentum": 1.0},
        {"momentum": 0.0},
        {"weight_decay": -1e-4},
        {"gamma": 0.0},
        {"warmup_epochs": 3.0},
        {"warmup_epochs": -1.0},
        {"batch_size": 0},
        {"label_smoothing": 1.0},
        {"clip_norm": 0.0},
        {"ema_decay": 1.0},
        {"holdout": 1.0},
        {"holdout": -0.1},
        {"patience": 0},
        {"milestones": (0.5, 1.0)},
    ],
    ids=str,
)
def test_a_field_out_of_range_is_named(field: dict[str, Any]) -> None:
    (value,) = field.values()
    with pytest.raises(BadArgument, match=str(value).replace("(", r"\(").replace(")", r"\)")):
        TuneConfig(**field)


def test_the_error_lists_what_is_known() -> None:
    with pytest.raises(BadArgument, match="adam, adamw, sgd"):
        TuneConfig(optimizer="rmsprop")


def test_json_round_trip() -> None:
    config = TuneConfig(epochs=7, optimizer="adamw", milestones=(0.1, 0.9), patience=2, ema_decay=0.99)
    assert from_json(TuneConfig, to_json(config)) == config
