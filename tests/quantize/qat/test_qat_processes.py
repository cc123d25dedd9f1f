"""Two processes train one quantized network: gradients are shared, and both end with the same integers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.slow
def test_two_processes_end_with_the_same_integers(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--master_addr", "127.0.0.1", "--master_port", str(_free_port())]
    launch += [str(tmp_path / "train.py"), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=180, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert any(name.endswith("integers") for name in first)
