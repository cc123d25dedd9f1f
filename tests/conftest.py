"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores; read when torch loads

import pytest
import torch


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
