"""Block reconstruction: integers, steps and biases learned so that each block gives what it gave in float.

Source: Li et al., "BRECQ: pushing the limit of post-training quantization by block reconstruction", ICLR
2021, arXiv 2102.05426, equation 10 and algorithm 1; Wei et al., "QDrop: randomly dropping quantization for
extremely low-bit post-training quantization", ICLR 2022, arXiv 2203.05740, section 3.3: inputs of the block
and activations inside it are left unrounded at random, half of them, which makes the minimum flat.

Where we differ: learning starts from the integers of another rounding (least squares), so some hundred
iterations do where the papers take 20,000; steps of weights and biases are learned too (both are free at run
time); integers round straight through instead of by rectified sigmoids, unless ``soft`` is asked for, and are
held by a spring as stiff as the error bends along them, so that they move where that lowers the error; blocks
are found on the graph; errors of a block's outputs are weighed by their variance and not by Fisher
information; what was learned is kept only if it is better than the start on images held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gracile.errors import BadArgument
from gracile.observe import bfloat16_autocast
from gracile.records import EdgeQuant, QuantPlan

from ..lower import fetch
from ..regions import Block, find_blocks
from .curvature import curvatures
from .learned import LearnedEdge, LearnedLayer, mixed, undecided
from .least_squares import LeastSquares
from .replay import Replay, Values, in_parts
from .site import Rounding, Site

_HELD = 8  # one image in that many judges and does not teach
_CHUNK = 64  # images run at a time without gradients
_POSITIONS = 1024  # of a map, up to which a step takes the whole batch
_PROBES = 8  # passes that curvature is averaged over
_FEWEST = 4  # images of a step, however large they are


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Learn the rounding of block after block.

    Args:
        images: Calibration images used, at least 2. Inputs and outputs of one block are kept in memory.
        iterations: Steps of Adam for each block, at least 1.
        batch: Images of a step, at least 1; fewer, but not below 4, in blocks whose maps have more than 1,024
            positions, so that a step sees about as many of them and takes about as long.
        drop: Share of values left unrounded at random while learning, from 0 to below 1.
        soft: Relax integers by rectified sigmoids (AdaRound, BRECQ) instead of rounding straight through.
        learn_steps: Learn steps of weights and of activations below 8 bits.
        layers: Layers of a block, where the graph leaves a choice.
        rate: Learning rate, in steps of the grid for integers.
        spring: What draws a weight that rounds straight through back to its integer, as a multiple of the
            curvature of the error along it: with 1, a gradient moves the integer by one only if that lowers
            the error; with 0 all gradients do.
        bf16: Convolve in bfloat16 while learning; None: where the device has instructions for it.
        seed: Of the choice of images and values.
        start: Rounding that learning starts from, and that 8-bit blocks keep.
        progress: Called with the number of blocks that are done, and of all.

    Example:
        >>> Blocks(iterations=200).needs_data
        True
    """

    images: int = 1024
    iterations: int = 500
    batch: int = 32
    drop: float = 0.5
    soft: bool = False
    learn_steps: bool = True
    layers: int = 4
    rate: float = 0.02
    spring: float = 1.0
    bf16: bool | None = None
    seed: int = 0
    start: Rounding = field(default_factory=LeastSquares)
    progress: Callable[[int, int], None] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, least in (("images", 2), ("iterations", 1), ("batch", 1), ("layers", 1)):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= least):
                raise BadArgument(name, wanted=f"a whole number, at least {least}", found=f"{value!r}")
        if not 0 <= self.drop < 1:
            raise BadArgument("drop", wanted="from 0 to below 1", found=f"{self.drop=}")
        if not self.rate > 0:
            raise BadArgument("rate", wanted="above 0", found=f"{self.rate=}")
        if not self.spring >= 0:
            raise BadArgument("spring", wanted="at least 0", found=f"{self.spring=}")

    needs_data = True

    def round(self, plan: QuantPlan, site: Site) -> QuantPlan:
        """The plan with what was learned; blocks of 8 bits stay at the start."""
        if plan.dynamic or any(w.group is not None for w in plan.weights):
            raise BadArgument(
                "rounding",
                wanted="scales by channel or tensor, and ranges found beforehand",
                found="ranges at run time" if plan.dynamic else "scales by group of inputs",
                do="Round by least squares: rounding='least_squares'.",
            )
        plan = self.start.round(plan, site)
        blocks = find_blocks(site.graph, site.units, self.layers)
        run = _Run(self, plan, site, blocks)
        for i, block in enumerate(blocks):
            run.learn(block)
            if self.progress is not None:
                self.progress(i + 1, len(blocks))
        return run.plan


class _Run:
    """Goes through the blocks of one model, with the values that pass between them."""

    def __init__(self, settings: Blocks, plan: QuantPlan, site: Site, blocks: list[Block]) -> None:
        self.settings, self.plan, self.site, self.blocks = settings, plan, site, blocks
        self.replay = Replay(site.graph, site.units, plan)
        self.random = torch.Generator().manual_seed(settings.seed)
        columns = [torch.cat(column)[: settings.images] for column in zip(*site.batches, strict=True)]
        inputs = [n for n in site.graph.graph.nodes if n.op == "placeholder"]
        self.exact: Values = dict(zip(inputs, columns, strict=True))
        self.lossy: Values = dict(self.exact)
        self.done: set[str] = set()  # layers and edges that are settled

    def learn(self, block: Block) -> None:
        """Settle one block and go on behind it."""
        exact = {n: self.exact[n] for n in block.inputs}
        lossy = {n: self.lossy[n] for n in block.inputs}
        targets = in_parts(lambda values: self.replay.block(block, values), exact, _CHUNK)
        layers, edges = self._learners(block, learn=True)
        if any(layer.plan.bits < 8 for layer in layers.values()) or any(e.coarse for e in edges.values()):
            start = self._learners(block, learn=False)
            _Lesson(self, block, layers, edges, exact, lossy, targets).run()
            if self._error(block, layers, edges, lossy, targets) < self._error(block, *start, lossy, targets):
                self._keep(layers, edges)
        self.done |= {*layers, *edges}
        settled = self._learners(block, learn=False)
        self.exact |= targets
        self.lossy |= in_parts(lambda values: self._hard(block, *settled, values), lossy, _CHUNK)
        self._forget(block)

    def _learners(self, block: Block, learn: bool) -> tuple[dict[str, LearnedLayer], dict[str, LearnedEdge]]:
        """Layers and grids of a block as the plan has them now; settled ones do not learn."""
        graph, settings = self.site.graph, self.settings
        plans, grids = {w.layer: w for w in self.plan.weights}, self.plan.layer_grids
        layers = {}
        for layer in block.layers:
            weight = fetch(graph, str(layer.weight.target))
            bias = None if layer.bias is None else fetch(graph, str(layer.bias.target))
            made = LearnedLayer(
                plans[layer.name],
                weight,
                bias,
                soft=settings.soft,
                unit=self.replay.sizes[layer.name],
                input_scale=grids[self.site.units.carried[layer.source].name].scale,
            )
            for tensor in made.parameters().values():
                tensor.requires_grad_(learn and layer.name not in self.done)
            made.factor.requires_grad_(made.factor.requires_grad and settings.learn_steps)
            layers[layer.name] = made
        found = {edge.name: edge for edge in self.plan.edges}
        edges = {}
        for name in self.replay.edges_of(block):
            wanted = learn and settings.learn_steps and found[name].bits < 8 and name not in self.done
            edges[name] = LearnedEdge(found[name], wanted)
        return layers, edges

    def _hard(
        self,
        block: Block,
        layers: dict[str, LearnedLayer],
        edges: dict[str, LearnedEdge],
        values: Values,
    ) -> Values:
        """The block as it will be stored."""
        weights = {name: (lambda layer=layer: (layer.hard(), layer.bias)) for name, layer in layers.items()}
        return self.replay.block(block, values, weights, lambda name, x: edges[name](x))

    def _error(
        self,
        block: Block,
        layers: dict[str, LearnedLayer],
        edges: dict[str, LearnedEdge],
        lossy: Values,
        targets: Values,
    ) -> float:
        """Of the stored block on the images held out."""
        with torch.no_grad():
            found = self._hard(block, layers, edges, {n: x[::_HELD] for n, x in lossy.items()})
        return float(distance(found, {n: x[::_HELD] for n, x in targets.items()}))

    def _keep(self, layers: dict[str, LearnedLayer], edges: dict[str, LearnedEdge]) -> None:
        learned: dict[str, EdgeQuant] = {name: edge.finished() for name, edge in edges.items()}
        weights = tuple(layers[w.layer].finished() if w.layer in layers else w for w in self.plan.weights)
        edges_now = tuple(learned.get(edge.name, edge) for edge in self.plan.edges)
        self.plan = replace(self.plan, weights=weights, edges=edges_now)

    def _forget(self, block: Block) -> None:
        """Drop values that no later block reads."""
        rest = self.blocks[self.blocks.index(block) + 1 :]
        needed = {node for later in rest for node in later.inputs}
        self.exact = {node: value for node, value in self.exact.items() if node in needed}
        self.lossy = {node: value for node, value in self.lossy.items() if node in needed}


class _Lesson:
    """Gradient descent on one block."""

    def __init__(
        self,
        run: _Run,
        block: Block,
        layers: dict[str, LearnedLayer],
        edges: dict[str, LearnedEdge],
        exact: Values,
        lossy: Values,
        targets: Values,
    ) -> None:
        self.run_, self.block, self.layers, self.edges = run, block, layers, edges
        self.settings = run.settings
        count = len(next(iter(exact.values())))
        self.taught = torch.tensor([i for i in range(count) if i % _HELD] or [0])
        self.exact, self.lossy, self.targets = exact, lossy, targets
        self.spread = {node: x.var(correction=0).clamp(min=1e-12) for node, x in targets.items()}
        self.batch = batch_for(self.settings.batch, [*exact.values(), *targets.values()])

    def run(self) -> None:
        """All iterations; rates fall to nothing along half a cosine."""
        settings = self.settings
        optimizer = torch.optim.Adam(self._groups(), lr=settings.rate, betas=(0.9, 0.99))
        rates = [group["lr"] for group in optimizer.param_groups]
        springs = self._springs()
        for i in range(settings.iterations):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * i / settings.iterations))
            optimizer.zero_grad()
            loss = self._loss(i / settings.iterations)
            loss.backward()  # type: ignore[no-untyped-call]
            for latent, stiffness in springs:
                assert latent.grad is not None
                latent.grad += stiffness * (latent - latent.round()).detach()
            optimizer.step()
            for layer in self.layers.values():
                layer.hold()

    def _springs(self) -> list[tuple[Tensor, Tensor]]:
        """Weights that round straight through, and how strongly each is drawn to its integer."""
        settings, random = self.settings, self.run_.random
        latents = [layer.latent for layer in self.layers.values() if layer.latent.requires_grad]
        if settings.soft or not settings.spring or not latents:
            return []

        def weighted() -> list[tuple[Tensor, Tensor]]:
            picked = self._picked()
            found = self._found({n: self.lossy[n][picked] for n in self.block.inputs}, drop=0.0)[0]
            return [(y, 1 / (y.numel() * self.spread[n])) for n, y in found.items()]

        bends = curvatures(weighted, latents, _PROBES, random)
        return [(latent, settings.spring * bend) for latent, bend in zip(latents, bends, strict=True)]

    def _groups(self) -> list[dict[str, object]]:
        rate = self.settings.rate
        rates = {"weights": rate, "steps": 0.2 * rate, "biases": 0.2 * rate}
        groups: list[dict[str, object]] = []
        for kind, own in rates.items():
            tensors = [layer.parameters()[kind] for layer in self.layers.values()]
            groups.append({"params": [t for t in tensors if t.requires_grad], "lr": own})
        steps = [edge.factor for edge in self.edges.values() if edge.factor.requires_grad]
        groups.append({"params": steps, "lr": 0.2 * rate})
        return [group for group in groups if group["params"]]

    def _picked(self) -> Tensor:
        """Images of a step."""
        return self.taught[torch.randint(len(self.taught), (self.batch,), generator=self.run_.random)]

    def _found(self, values: Values, drop: float) -> tuple[Values, list[Tensor]]:
        """What the block gives with weights that can learn, and their rectified sigmoids (or nothing)."""
        open_: list[Tensor] = []

        def weights_of(layer: LearnedLayer) -> tuple[Tensor, Tensor]:
            weight, h = layer.relaxed()
            open_.append(h)
            return weight, layer.bias

        weights = {name: (lambda layer=layer: weights_of(layer)) for name, layer in self.layers.items()}
        device = next(iter(values.values())).device
        with bfloat16_autocast(device, self.settings.bf16):
            found = self.run_.replay.block(
                self.block, values, weights, lambda name, x: self.edges[name](x, drop, self.run_.random)
            )
        return found, open_

    def _loss(self, done: float) -> Tensor:
        settings, picked = self.settings, self._picked()
        values = {n: self._mixed(self.exact[n][picked], self.lossy[n][picked]) for n in self.block.inputs}
        found, open_ = self._found(values, settings.drop)
        off = [(found[n].float() - self.targets[n][picked]).square().mean() / self.spread[n] for n in found]
        loss = torch.stack(off).sum()
        if settings.soft and done > 0.2:
            beta = 20 - 18 * (done - 0.2) / 0.8
            loss = loss + loss.detach() * sum(undecided(h, beta) / h.numel() for h in open_)
        return loss

    def _mixed(self, exact: Tensor, lossy: Tensor) -> Tensor:
        if not self.settings.drop:
            return lossy
        return mixed(exact, lossy, self.settings.drop, self.run_.random)


def batch_for(batch: int, values: Sequence[Tensor]) -> int:
    """Images of a step, from what a block reads and gives, each ``(images, channels, *positions)``.

    Example:
        >>> [batch_for(32, [torch.zeros(1, 8, size, size)]) for size in (28, 32, 56, 112)]
        [32, 32, 10, 4]
    """
    positions = max(math.prod(x.shape[2:]) for x in values)
    return min(batch, max(_FEWEST, batch * _POSITIONS // positions))


def distance(found: Values, wanted: Values) -> Tensor:
    """Squared error relative to the variance, summed over tensors."""
    parts = [
        (found[n].float() - x).square().mean() / x.var(correction=0).clamp(min=1e-12)
        for n, x in wanted.items()
    ]
    return torch.stack(parts).sum()
