"""The kinds of step that a recipe may list: one file each, and one entry here."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

from ..schema import Step
from .codebook import CodebookStep as CodebookStep
from .decompose import DecomposeStep as DecomposeStep
from .export import ExportStep as ExportStep
from .fold import FoldStep as FoldStep
from .fuse import FuseStep as FuseStep
from .joint import JointStep as JointStep
from .merge import MergeStep as MergeStep
from .pack import PackStep as PackStep
from .prune import PruneStep as PruneStep
from .prune_depth import PruneDepthStep as PruneDepthStep
from .qat import QatStep as QatStep
from .quantize import QuantizeStep as QuantizeStep
from .sparsify import SparsifyStep as SparsifyStep
from .train import TrainStep as TrainStep
from .tune import TuneStep as TuneStep

STEPS: dict[str, type[Step]] = {
    "train": TrainStep,
    "prune": PruneStep,
    "prune_depth": PruneDepthStep,
    "decompose": DecomposeStep,
    "joint": JointStep,
    "merge": MergeStep,
    "sparsify": SparsifyStep,
    "tune": TuneStep,
    "fold": FoldStep,
    "fuse": FuseStep,
    "codebook": CodebookStep,
    "quantize": QuantizeStep,
    "qat": QatStep,
    "export": ExportStep,
    "pack": PackStep,
}

if TYPE_CHECKING:
    AnyStep: TypeAlias = Step
else:
    AnyStep = Annotated[reduce(or_, STEPS.values()), Field(discriminator="step")]
