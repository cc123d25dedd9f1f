"""Why a gradient criterion collapses: forms of ``sum w dL/dw`` beside ours, on ResNet-20's inner channels.

Nothing is tuned or refitted; batch norms are estimated anew. 512 training images score, 1,000 other training
images say what is left, drawn anew for each seed; test images take no part. It prints a table and, in front
of it, how large the signed sums are with the batch's own statistics and with fixed ones. There are no bars:
the page on the Taylor criterion shows the table.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from gracile import data, observe, prune, surgery, zoo
from gracile.graph import Group, capture, trace
from gracile.observe.batchnorm import reestimate_
from gracile.prune.criteria.criterion import Scores, rows_written
from gracile.prune.criteria.examples import Example, labelled_chunks
from gracile.prune.layers import tensors
from gracile.records import PrunePlan

BATCH = 32


@dataclass(frozen=True)
class Draw:
    """A scene with the images of one seed, and the images that judge."""

    scene: prune.Scene
    judge: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, model: nn.Module, bundle: data.DataBundle, seed: int) -> Draw:
        order = torch.randperm(len(bundle.train), generator=torch.Generator().manual_seed(seed))
        train: observe.Batches = bundle.train
        images, labels = next(train.subset(order[:512]).batches(512))
        judge = next(train.subset(order[512:1512]).batches(1000))
        found = trace(capture(model, (images[:1],)))
        inner = tuple(g for g in found.groups if g.name.endswith(".conv1"))
        examples = labelled_chunks((images, labels), BATCH)
        scene = prune.Scene(
            model=model, provenance=found, groups=inner, labelled=examples,
            calibration=tuple(inputs for inputs, _ in examples), seed=seed,
        )  # fmt: skip
        return cls(scene, judge)

    def left(self, scores: Scores, ratio: float) -> float:
        """Percent right of the judging images when the lowest scores of each layer are gone."""
        gone = {
            g.name: tuple(sorted(np.argsort(scores[g.name], kind="stable")[: int(ratio * g.units)].tolist()))
            for g in self.scene.groups
        }
        small = surgery.apply(
            self.scene.model, PrunePlan(groups=(), slices=self.scene.provenance.slices(gone))
        )
        reestimate_(small, self.scene.calibration[: 256 // BATCH])
        images, labels = self.judge
        with torch.no_grad():
            return 100 * float((small(images).argmax(1) == labels).float().mean())


def products(scene: prune.Scene, batch: Example, *, training: bool) -> Scores:
    """``sum w dL/dw`` of each filter for one batch, with the batch's statistics or with fixed ones."""
    model = copy.deepcopy(scene.model).train(training)
    inputs, labels = batch
    nn.functional.cross_entropy(model(*inputs), labels).backward()
    slopes = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    held = tensors(model)

    def of(group: Group) -> np.ndarray:
        slot = group.writers[0]
        found: np.ndarray = (rows_written(slot, held) * rows_written(slot, slopes)).sum(1).numpy()
        return found

    return {group.name: of(group) for group in scene.groups}


def magnitude(scores: Scores) -> Scores:
    """Absolute values."""
    return {name: np.abs(values) for name, values in scores.items()}


WAYS: dict[str, Callable[[prune.Scene], Scores]] = {
    "sum w dL/dw, signed, one batch, training mode": lambda s: products(s, s.labelled[0], training=True),
    "the same, absolute value": lambda s: magnitude(products(s, s.labelled[0], training=True)),
    "signed, statistics fixed": lambda s: products(s, s.labelled[0], training=False),
    "gates: Taylor(power=2)": prune.Taylor(power=2),
    "gates: Taylor()": prune.Taylor(),
    "L1()": prune.L1(),
    "random": prune.Random(),
}


def main() -> None:
    """Run every way at every ratio and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ratios", default="0.4,0.6")
    parsed = parser.parse_args()
    weights = parsed.data_root / "weights" / "cifar10_resnet20.safetensors"
    model = zoo.load_model("gracile:resnet20", weights=weights).eval()
    bundle = data.load_data("cifar10", parsed.data_root)
    ratios = [float(ratio) for ratio in parsed.ratios.split(",")]
    found: dict[tuple[str, float], list[float]] = {}
    sizes: dict[bool, list[float]] = {True: [], False: []}
    for seed in track(range(parsed.seeds), "draws", console=Console(stderr=True)):
        draw = Draw.of(model, bundle, seed)
        for training, size in sizes.items():
            sums = products(draw.scene, draw.scene.labelled[0], training=training)
            size.append(float(np.mean([np.abs(v).mean() for v in sums.values()])))
        for name, way in WAYS.items():
            scores = way(draw.scene)
            for ratio in ratios:
                found.setdefault((name, ratio), []).append(draw.left(scores, ratio))
    console = Console()
    console.print(f"mean |sum w dL/dw|: {statistics.fmean(sizes[True]):.1e} in training mode, "
                  f"{statistics.fmean(sizes[False]):.1e} with statistics fixed")  # fmt: skip
    table = Table("score", *[f"{ratio:.0%} gone" for ratio in ratios])
    for name in WAYS:
        cells = [found[name, ratio] for ratio in ratios]
        table.add_row(name, *[f"{statistics.fmean(c):.1f} ({min(c):.1f} to {max(c):.1f})" for c in cells])
    console.print(table)


if __name__ == "__main__":
    main()
