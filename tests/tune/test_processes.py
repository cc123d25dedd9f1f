"""Two processes, as ``accelerate launch`` starts them, share an epoch and end with one model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

InTwo = Callable[[str], list[dict[str, Any]]]

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from gracile.tune import TuneConfig, fit

torch.manual_seed(0)
images = torch.randn(64, 3)
data = torch.utils.data.TensorDataset(images, (images[:, 0] > 0).long())
model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
config = TuneConfig(epochs=2, lr=0.1, batch_size=8, bf16=False, holdout=0.25, ema_decay=0.5)
out = Path(sys.argv[1])
history = fit(model, data, config, checkpoint=out / "run.safetensors")
from accelerate import PartialState
rank = PartialState().process_index
facts = {"weights": [t.flatten().tolist() for t in model.state_dict().values()],
         "steps": history.epochs[0].steps, "losses": [e.train_loss for e in history.epochs]}
(out / f"{rank}.json").write_text(json.dumps(facts))
PartialState().destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_end_with_the_same_model(in_two_processes: InTwo, tmp_path: Path) -> None:
    first, second = in_two_processes(SCRIPT)
    assert first == second
    assert first["steps"] == 3  # 48 examples, two processes, 8 a step
    assert (tmp_path / "run.safetensors").exists()
