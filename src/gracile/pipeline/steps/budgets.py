"""How much may stay, as a recipe says it: the parts that steps with a budget have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from ..schema import Part

if TYPE_CHECKING:
    from gracile.records import Bytes, Macs, Params


class SharesPart(Part):
    """How much may stay as a share."""

    macs: float | None = Field(default=None, gt=0, lt=1)
    """Share of the multiply-adds to keep."""
    params: float | None = Field(default=None, gt=0, lt=1)
    """Share of the parameters to keep."""

    def share(self) -> Macs | Params | None:
        """The share as the library's own object; none where neither is given."""
        from gracile.records import Macs, Params

        if self.macs is not None:
            return Macs(fraction_kept=self.macs)
        return None if self.params is None else Params(fraction_kept=self.params)


class BudgetPart(SharesPart):
    """How much may stay: exactly one of the fields, ``weight_bits`` beside ``bytes`` aside."""

    bytes: int | None = Field(default=None, ge=1)
    """What all parameters may take by formula, weights in ``weight_bits``, everything else in 32."""
    weight_bits: int | None = Field(default=None, ge=1, le=32)
    """With ``bytes``: what a weight will be stored in; default 32."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        fields = [name for name in type(self).model_fields if name != "weight_bits"]
        given = [name for name in fields if getattr(self, name) is not None]
        if self.weight_bits is not None and self.bytes is None:
            raise ValueError("weight_bits belongs to a budget in bytes")
        pairs = self.pairs()
        if len(given) != 1 and set(given) not in pairs:
            texts = [", ".join(fields), *(f"or {' and '.join(sorted(pair))}" for pair in pairs)]
            raise ValueError(f"one of {', '.join(texts)} (given: {', '.join(given) or 'none'})")
        return self

    @classmethod
    def pairs(cls) -> tuple[set[str], ...]:
        """Fields that may be given together."""
        return ()

    def cost(self) -> Macs | Params | Bytes | None:
        """The budget as the library's own object; none where another field says it."""
        from gracile.records import Bytes

        if self.bytes is not None:
            return Bytes(at_most=self.bytes, weight_bits=self.weight_bits or 32)
        return self.share()
