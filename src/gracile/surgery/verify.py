"""Three proofs on the user's own model: permutation, zero then remove, keep all.

1. *Permutation.* Shuffling the units of every group, everywhere they appear, must not change the outputs.
2. *Zero, then remove.* A network whose readers ignore the removed channels must equal the one without them.
3. *Keep all.* A plan that keeps everything must give the same network.

They run in float64 where the model allows it. Parameters that are constant (fresh normalisations) get noise
in the copies they run on, because constants hide errors; each proof also states its *effect*: how far a
network that the test wrongly changes moves, so that a proof which could not fail would show.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gracile.errors import ProofError
from gracile.graph import Group, Provenance, Slot, capture, evaluating, trace
from gracile.records import AttributeEdit, Proof, PrunePlan

from .reference import run_reference, tensors_of
from .slice import apply

TOLERANCE = {torch.float64: 1e-7, torch.float32: 2e-3}


def verify(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    plan: PrunePlan,
    *,
    provenance: Provenance | None = None,
    seed: int = 0,
) -> tuple[Proof, ...]:
    """Prove ``plan`` on ``model``.

    Args:
        model: The model before the removal; left as it was.
        inputs: Example inputs, a batch of one is enough; random values of their shape are used.
        plan: What stays.
        provenance: The traced model, when it is at hand.
        seed: Of the random inputs, permutations and noise.

    Returns:
        Three proofs; look at ``passed``, or call :func:`require`.

    Example:
        >>> from gracile.records import GroupPlan
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> found = trace(capture(net, (torch.zeros(1, 4),)))
        >>> plan = PrunePlan(groups=(GroupPlan(name="0", units=8, keep=(1, 5)),),
        ...                  slices=found.slices({"0": [0, 2, 3, 4, 6, 7]}))
        >>> [p.passed for p in verify(net, (torch.zeros(1, 4),), plan)]
        [True, True, True]
    """
    found = provenance if provenance is not None else trace(capture(model, inputs), cuts=plan.rewires)
    removed = {g.name: g.removed for g in plan.groups if g.removed}
    stage = Stage(model, inputs, seed)
    return (
        stage.permutation([g for g in found.groups if g.name not in {c.group for c in found.cuts}]),
        stage.zero_then_remove(found, removed, plan),
        stage.keep_all(plan),
    )


def require(proofs: Sequence[Proof]) -> None:
    """Raise :class:`ProofError` for the first proof that failed."""
    for proof in proofs:
        if not proof.passed:
            raise ProofError(
                proof.name,
                wanted=f"outputs equal within {proof.tolerance:g} of the largest",
                found=f"{proof.error:.2g} {proof.detail}".strip(),
                do="The plan does not fit the model; leave the group out and report the model.",
            )


class Stage:
    """A copy of the model with lively numbers, in float64 where it runs in it, and inputs for it."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...], seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.model = copy.deepcopy(model).cpu()
        liven_(self.model, self.generator)
        self.inputs = tuple(
            torch.randn(x.shape, generator=self.generator) if x.is_floating_point() else x.cpu()
            for x in inputs
        )
        plain = self.model
        self.dtype = torch.float64
        try:
            self.model = copy.deepcopy(plain).double()
            self.inputs64 = tuple(x.double() if x.is_floating_point() else x for x in self.inputs)
            self.base = run(self.model, self.inputs64)
            self.inputs = self.inputs64
        except RuntimeError:  # code that makes float32 tensors of its own
            self.model, self.dtype = plain, torch.float32
            self.base = run(self.model, self.inputs)
        self.tolerance = TOLERANCE[self.dtype]

    def permutation(self, groups: Sequence[Group]) -> Proof:
        """Shuffle the units of every group."""
        shuffles = [torch.randperm(g.units, generator=self.generator).numpy() for g in groups]
        right, wrong = copy.deepcopy(self.model), copy.deepcopy(self.model)
        for group, shuffle in zip(groups, shuffles, strict=True):
            _permute_(right, group, shuffle, roles=("write", "along", "read"))
            _permute_(wrong, group, shuffle, roles=("write", "along"))
        return self.proof("permutation", run(right, self.inputs), self.base, run(wrong, self.inputs))

    def zero_then_remove(
        self, provenance: Provenance, removed: Mapping[str, Sequence[int]], plan: PrunePlan
    ) -> Proof:
        """Compare the narrowed network with one whose readers ignore what went."""
        gone = provenance.gone(removed)
        zeroed = copy.deepcopy(self.model)
        held = tensors_of(zeroed)
        with torch.no_grad():
            for name, units in removed.items():
                for slot in _silencers(provenance, name):
                    index = torch.from_numpy(slot.index[np.asarray(units, dtype=np.int64)].reshape(-1))
                    held[slot.param].index_fill_(slot.axis, index, 0)
        reduces = any(provenance.kept(n.all_input_nodes[0].name, gone) for n in provenance.shrinking)
        with evaluating(zeroed), torch.no_grad():
            wanted = (
                run_reference(provenance, zeroed, gone, self.inputs) if reduces else run(zeroed, self.inputs)
            )
        narrowed = run(apply(self.model, plan), self.inputs)
        detail = "normalisations and means counted over the kept channels" if reduces else ""
        return self.proof(
            "zero then remove", narrowed, wanted, self.base, detail, any(map(len, removed.values()))
        )

    def keep_all(self, plan: PrunePlan) -> Proof:
        """Apply the plan with everything kept."""
        slices = tuple(
            type(s)(param=s.param, axis=s.axis, size=s.size, keep=tuple(range(s.size))) for s in plan.slices
        )
        edits = tuple(
            AttributeEdit(module=e.module, attribute=e.attribute, old=e.old, new=e.old)
            for e in plan.attributes
        )
        whole = apply(self.model, PrunePlan(groups=(), slices=slices, attributes=edits))
        return self.proof("keep all", run(whole, self.inputs), self.base, None, tolerance=0.0)

    def proof(
        self,
        name: str,
        found: list[Tensor],
        wanted: Any,
        other: list[Tensor] | None,
        detail: str = "",
        moves: bool = True,
        tolerance: float | None = None,
    ) -> Proof:
        """Compare outputs with those wanted; ``other`` are outputs that must differ, and show the effect."""
        tolerance = self.tolerance if tolerance is None else tolerance
        expected = flat(wanted)
        error = difference(found, expected)
        effect = difference(other, expected) if other is not None else 0.0
        words = [detail] if detail else []
        if other is not None and moves and effect <= tolerance:
            words.append("the outputs hardly depend on these channels, so this proof says little")
        if self.dtype == torch.float32:
            words.append("in float32: the model does not run in float64")
        return Proof(name=name, passed=error <= tolerance, error=error, tolerance=tolerance, effect=effect,
                     detail="; ".join(words))  # fmt: skip


def _silencers(provenance: Provenance, name: str) -> list[Slot]:
    """Where zeros make a group vanish: what reads it, or what writes a branch that is cut off."""
    group = provenance.group(name)
    if all(c.group != name or c.kind == "gather" for c in provenance.cuts):
        return list(group.readers)
    return [s for s in group.slots if not s.param.endswith("running_var")]


def flat(outputs: Any) -> list[Tensor]:
    """Tensors of a nested output, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    return [t for o in outputs for t in flat(o)] if isinstance(outputs, list | tuple) else []


def run(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs of ``model`` in evaluation mode."""
    with evaluating(model), torch.no_grad():
        return flat(model(*[x.clone() for x in inputs]))


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference relative to the largest output; infinite where shapes or numbers are bad."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape or not bool(torch.isfinite(x).all()):
            return float("inf")
        if y.numel():
            found, wanted = x.double(), y.double()
            worst = max(worst, float((found - wanted).abs().max()) / (float(wanted.abs().max()) or 1.0))
    return worst


def liven_(model: nn.Module, generator: torch.Generator) -> None:
    """Give parameters and statistics that are constant (fresh norms, zero gammas) some noise, in place."""
    for name, tensor in tensors_of(model).items():
        if (
            not tensor.is_floating_point()
            or tensor.numel() < 2
            or bool(tensor.ne(tensor.reshape(-1)[0]).any())
        ):
            continue
        noise = torch.rand(tensor.shape, generator=generator) * 0.5
        first = float(tensor.detach().reshape(-1)[0])
        centred = first == 0 and name.endswith(("bias", "mean"))
        spread = noise - 0.25 if centred else noise + 0.75
        with torch.no_grad():
            tensor.copy_((spread * (first or 1.0)).to(tensor.dtype))


def _permute_(model: nn.Module, group: Group, shuffle: np.ndarray, roles: tuple[str, ...]) -> None:
    held = tensors_of(model)
    with torch.no_grad():
        for slot in group.slots:
            if slot.role in roles:
                tensor = held[slot.param]
                source = torch.from_numpy(slot.index[shuffle].reshape(-1))
                target = torch.from_numpy(slot.index.reshape(-1))
                tensor.index_copy_(slot.axis, target, tensor.index_select(slot.axis, source))
