"""What `sparsify` and gradual pruning have in common: the fields that say which weights become zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..schema import Part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gracile.prune import EntryCriterion, Granularity

    from ..state import Bench

BATCH = 64  # images at a time for gradients


class MaskPart(Part):
    """Fields of masks."""

    granularity: Literal["element", "kernel", "input_channel", "output_channel", "block", "n:m"] = "element"
    """What becomes zero together."""
    block: tuple[int, int] = (4, 4)
    """Rows and columns of a block of the flattened weight."""
    n_of_m: tuple[int, int] = (2, 4)
    """For ``n:m``: so many of every so many weights along the inputs stay."""
    criterion: Literal["random", "l1", "l2", "gradient"] = "l1"
    """How entries are ranked; the lowest go."""
    sparsity: float | None = Field(default=None, ge=0, lt=1)
    """Share of zeros; half when empty, and for ``n:m`` what follows from it."""
    scope: Literal["layer", "global"] = "layer"
    """The same share in every layer, or the lowest scores of the whole model."""
    leave: tuple[str, ...] = ("first", "last")
    """Layers left alone: ``first``, ``last`` or dotted names."""
    gradient_images: int = Field(default=512, ge=1)
    """Labelled training images for ``criterion: gradient``."""

    def kind(self) -> Granularity:
        """The granularity as the library's own object."""
        from gracile import prune

        if self.granularity == "block":
            return prune.Block(rows=self.block[0], columns=self.block[1])
        if self.granularity == "n:m":
            return prune.NofM(n=self.n_of_m[0], m=self.n_of_m[1])
        return prune.GRANULARITIES[self.granularity]

    def ranking(self) -> EntryCriterion:
        """The criterion as the library's own object."""
        from gracile import prune

        return prune.ENTRY_CRITERIA[self.criterion]

    def check_masks(self) -> None:
        """Refuse fields that do not fit together."""
        from gracile.prune.masks.masking import check_sparsity

        check_sparsity(self.kind(), self.sparsity, self.scope)

    def gradients(self, model: nn.Module, bench: Bench) -> Mapping[str, Tensor]:
        """Mean absolute gradients of ``model`` on training images; none where the criterion needs none."""
        import torch

        from gracile import prune

        if not self.ranking().needs_gradients:
            return {}
        train = bench.bundle.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(bench.seed))
        return prune.mean_gradients(model, train.subset(order[: self.gradient_images]).batches(BATCH))
