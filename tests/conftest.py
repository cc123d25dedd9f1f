"""Fixtures that every test may use."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores; read when torch loads

import pytest
import torch
from hypothesis import settings

settings.register_profile("shared machine", deadline=None)  # others' work must not fail an example
settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The shared data; a test that asks for it is skipped, by name, where it is absent."""
    named = os.environ.get("GRACILE_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(named) if named else beside
    if not (root / "cifar10").is_dir():
        pytest.skip(f"needs the shared data: set GRACILE_DATA (looked in {root})")
    return root


@pytest.fixture
def in_two_processes(tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Run a script in two processes that share gradients over gloo; it gets a folder, and leaves there
    ``0.json`` and ``1.json``, which come back."""

    def run(script: str) -> list[dict[str, Any]]:
        (tmp_path / "train.py").write_text(script)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        launch += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
        launch += [str(tmp_path / "train.py"), str(tmp_path)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(
            launch, capture_output=True, text=True, timeout=180, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]

    return run
