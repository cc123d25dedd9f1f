"""A recipe that runs in seconds, and a way to watch and stop its stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gracile import data
from gracile.pipeline import Recipe, parse_recipe, runner
from gracile.pipeline.state import Bench

NET = """
from torch import nn

class Net(nn.Sequential):
    input_shape = (1, 8, 8)

def build():
    return Net(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10),
    )
"""
TINY = """
name: tiny
model: {spec: "FOLDER/net.py:build"}
data: {spec: digits}
steps:
- {step: train, epochs: 2, lr: 0.1, batch_size: 32, train_images: 256, bf16: false}
- {step: prune, budget: {macs: 0.6}, calibration: 64}
- {step: tune, epochs: 2, lr: 0.01, batch_size: 32, train_images: 128, bf16: false}
- {step: fold}
- {step: quantize, calibration: 64, reduce_range: true}
- {step: export}
measure: {runtimes: [torch, ort], batches: [1, 4], runs: 6, threads: 1, test_images: 100}
"""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "net.py").write_text(NET)
    return parse_recipe(TINY.replace("FOLDER", str(folder)))


@dataclass
class Watched:
    """How often each stage was done; ``stop_at`` names the one that raises ``stop`` instead."""

    done: Counter[str] = field(default_factory=Counter)
    stop_at: str = ""
    stop: BaseException = field(default_factory=KeyboardInterrupt)

    def around(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            if name == self.stop_at:
                raise self.stop
            self.done[name] += 1
            return work(*arguments)

        return watched


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watch, listed = Watched(), runner.stages

    def stages(recipe: Recipe) -> tuple[Any, ...]:
        return tuple(replace(s, work=watch.around(s.name, s.work)) for s in listed(recipe))

    monkeypatch.setattr(runner, "stages", stages)
    return watch


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """The tools of a step on digits, without a run around it."""
    bundle = data.load_data("digits")
    images = bundle.calibration(4)
    return Bench(
        bundle=bundle, inputs=(images[:1],), images=images, seed=0, out=tmp_path,
        partial=tmp_path / "partial",
        done={}, restored=lambda name: pytest.fail(name), tick=lambda text, done, total: None,
        note=lambda text: None,
    )  # fmt: skip
