"""Networks of the zoo that a benchmark trains itself, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from gracile import records, tune, zoo


def trained_once(file: Path, spec: str, examples: Any, config: tune.TuneConfig) -> nn.Module:
    """The network ``spec`` with the weights in ``file``; where there is none, trained and kept there.

    An interrupted training goes on after its last epoch: its state lies beside ``file`` until it is done.
    """
    if file.is_file():
        return zoo.load_model(spec, weights=file)
    torch.manual_seed(config.seed)
    model = zoo.load_model(spec)
    state = file.with_suffix(".training.safetensors")
    tune.fit(model, examples, config, checkpoint=state, progress=True)
    with records.atomic_write(file) as temporary:
        safetensors.torch.save_file(model.state_dict(), temporary)
    state.unlink()
    return model.eval()
