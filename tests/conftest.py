"""Fixtures that every test may use."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores; read when torch loads

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import settings

from gracile import export
from gracile.observe import lacks_vnni
from gracile.quantize import reduced_range

settings.register_profile("shared machine", deadline=None)  # others' work must not fail an example
settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _as_with_vnni() -> Iterator[None]:
    """Tests see the same integers on every processor: the full range of 8 bits, and whole sums."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduced_range, "lacks_vnni", lambda: False)
        if lacks_vnni():
            patch.setattr(onnxruntime, "InferenceSession", _WholeSums)
        yield


@pytest.fixture
def this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that wants the processor as it is."""
    monkeypatch.setattr(reduced_range, "lacks_vnni", lacks_vnni)
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Session)


_Session = onnxruntime.InferenceSession


class _WholeSums(_Session):  # type: ignore[misc]
    """Adds 8-bit products in 32 bits where they would be added in pairs of 16."""

    def __init__(self, model: Any, *rest: Any, **named: Any) -> None:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        if export.unsigned_weights(proto):
            model = proto.SerializeToString()
        super().__init__(model, *rest, **named)


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
