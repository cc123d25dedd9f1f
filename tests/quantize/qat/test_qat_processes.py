"""Two processes train one quantized network: gradients are shared, and both end with the same integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

InTwo = Callable[[str], list[dict[str, Any]]]

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from gracile.quantize.qat import Phases, Plan, QatScheme, prepare
from gracile.tune import TuneConfig, fit

torch.manual_seed(0)
images = torch.randn(64, 3, 8, 8)
data = torch.utils.data.TensorDataset(images, (images.mean((1, 2, 3)) > 0).long())
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
                    nn.ReLU(), nn.Flatten(), nn.Linear(128, 2)).eval()
model = prepare(net, (images[:1],), [images], QatScheme(weight_bits=2, activation_bits=4))
config = TuneConfig(epochs=2, lr=0.05, batch_size=8, bf16=False, holdout=0.25)
fit(model, data, config, hooks=[Phases(Plan(epochs=2, activations_from=2))])
from accelerate import PartialState
rank = PartialState().process_index
deployed = model.convert()
facts = {name: tensor.flatten().tolist() for name, tensor in deployed.named_buffers()}
(Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(facts))
PartialState().destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_end_with_the_same_integers(in_two_processes: InTwo) -> None:
    first, second = in_two_processes(SCRIPT)
    assert first == second
    assert any(name.endswith("integers") for name in first)
