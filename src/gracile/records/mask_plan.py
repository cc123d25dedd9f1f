"""Which weights stay and which are zero: one bit a weight."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gracile.errors import BadArgument

from .skipped import Skipped


@dataclass(frozen=True, kw_only=True)
class ParamMask:
    """The weights of ``param`` that stay.

    ``bits`` is base64 text of one bit a weight in row-major order, first weight in the highest bit, 1 where
    the weight stays; bits that fill up the last byte are 0. ``granularity`` names what was masked together.

    Raises:
        BadArgument: The bits do not fit the shape.

    Example:
        >>> mask = ParamMask.of("fc.weight", np.array([[True, False, True]]), "element")
        >>> mask.bits, mask.kept, mask.of_all, mask.keep.tolist()
        ('oA==', 2, 3, [[True, False, True]])
    """

    param: str
    shape: tuple[int, ...]
    bits: str
    granularity: str = "element"

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise BadArgument(self.param, wanted="a shape of positive sizes", found=f"{self.shape}")
        size = math.prod(self.shape)
        try:
            raw = base64.b64decode(self.bits, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._misfit(f"text that is not base64 ({error})") from error
        if len(raw) != -(-size // 8):
            raise self._misfit(f"{len(raw)} bytes")
        if size % 8 and raw[-1] & ((1 << (8 - size % 8)) - 1):
            raise self._misfit("bits set behind the last weight")

    def _misfit(self, found: str) -> BadArgument:
        size = math.prod(self.shape)
        return BadArgument(
            self.param, wanted=f"{size} bits for shape {self.shape}", found=found, do="Make the plan anew."
        )

    @classmethod
    def of(cls, param: str, keep: NDArray[np.bool_], granularity: str) -> ParamMask:
        """Pack ``keep``, True where a weight stays, shaped as the parameter."""
        bits = base64.b64encode(np.packbits(keep.reshape(-1)).tobytes()).decode()
        return cls(param=param, shape=tuple(keep.shape), bits=bits, granularity=granularity)

    @property
    def keep(self) -> NDArray[np.bool_]:
        """True where a weight stays, shaped as the parameter."""
        raw = np.frombuffer(base64.b64decode(self.bits), dtype=np.uint8)
        return np.unpackbits(raw, count=self.of_all).astype(bool).reshape(self.shape)

    @property
    def kept(self) -> int:
        """Weights that stay."""
        return sum(byte.bit_count() for byte in base64.b64decode(self.bits))

    @property
    def of_all(self) -> int:
        """Weights of the parameter."""
        return math.prod(self.shape)

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return 1 - self.kept / self.of_all


@dataclass(frozen=True, kw_only=True)
class MaskPlan:
    """Masks of a model's weights. Parameters that are not listed are not masked.

    ``sparsity`` is the share of zeros asked for, ``scope`` says whether it holds in each layer or over all.

    Raises:
        BadArgument: A parameter is listed twice.

    Example:
        >>> mask = ParamMask.of("fc.weight", np.eye(4, dtype=bool), "element")
        >>> print(MaskPlan(masks=(mask,), criterion="EntryNorm(order=1)", scope="layer", sparsity=0.75))
        EntryNorm(order=1), 75.0 % asked for by layer: 4 of 16 weights stay, 75.0 % are zero
          layer      granularity  kept  of  sparsity
          fc.weight  element         4  16    75.0 %
    """

    masks: tuple[ParamMask, ...]
    skipped: tuple[Skipped, ...] = ()
    criterion: str = ""
    scope: str = "layer"
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        names = [mask.param for mask in self.masks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadArgument("masks", wanted="one for each parameter", found=f"several for {twice[0]}")

    def only(self, params: Collection[str]) -> MaskPlan:
        """The masks of these parameters: those of layers that are gone are left out."""
        return replace(self, masks=tuple(mask for mask in self.masks if mask.param in params))

    @property
    def kept(self) -> int:
        """Weights that stay, of those that are masked at all."""
        return sum(mask.kept for mask in self.masks)

    @property
    def of_all(self) -> int:
        """Weights of all masked parameters."""
        return sum(mask.of_all for mask in self.masks)

    @property
    def found_sparsity(self) -> float:
        """Share of zeros over all masked parameters; 0 where there are none."""
        return 1 - self.kept / self.of_all if self.masks else 0.0

    @property
    def by_layer(self) -> dict[str, float]:
        """Share of zeros of each masked parameter."""
        return {mask.param: mask.sparsity for mask in self.masks}

    def __str__(self) -> str:
        lines = [
            f"{self.criterion}, {100 * self.sparsity:.1f} % asked for by {self.scope}: {self.kept:,} of "
            f"{self.of_all:,} weights stay, {100 * self.found_sparsity:.1f} % are zero"
        ]
        cells = [("layer", "granularity", "kept", "of", "sparsity")]
        cells += [
            (m.param, m.granularity, f"{m.kept:,}", f"{m.of_all:,}", f"{100 * m.sparsity:.1f} %")
            for m in self.masks
        ]
        if self.masks:
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            for row in cells:
                left = [f"{text:<{width}}" for text, width in zip(row[:2], widths[:2], strict=True)]
                right = [f"{text:>{width}}" for text, width in zip(row[2:], widths[2:], strict=True)]
                lines.append("  " + "  ".join([*left, *right]))
        lines += [f"  left alone {s.where}: {s.why}" for s in self.skipped]
        return "\n".join(lines)
