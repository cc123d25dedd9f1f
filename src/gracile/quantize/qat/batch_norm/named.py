"""Schemes by name, for layers with a batch norm behind them."""

from __future__ import annotations

from .base import QatLayer
from .fold_and_drop import FoldAndDrop
from .frozen import Frozen
from .krishnamoorthi import Krishnamoorthi
from .one_convolution import OneConvolution
from .plain import Plain
from .two_convolutions import TwoConvolutions

SCHEMES_OF_BN: dict[str, type[QatLayer]] = {
    "fold_and_drop": FoldAndDrop,
    "frozen": Frozen,
    "two_convolutions": TwoConvolutions,
    "krishnamoorthi": Krishnamoorthi,
    "one_convolution": OneConvolution,
    "plain": Plain,
}
