"""How labels pass through each kind of operation.

Operations fall into few kinds: data movement (run literally on the labels), element by element (what
meets goes together), sums of products (convolution, linear, matrix product), normalisations, reductions
and windows over space. An operation of no known kind freezes what it touches; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import fx

from .context import Context as Context
from .context import Result as Result
from .context import bound as bound
from .context import packet as packet
from .context import shape_of as shape_of
from .context import unknown as unknown
from .elementwise import is_pointwise as is_pointwise
from .elementwise import pointwise_rule, prelu_rule
from .movement import LITERAL as LITERAL
from .movement import cat_rule, getitem_rule, literal_rule, pad_rule
from .movement import growing_pad_rule as growing_pad_rule
from .normalisation import batch_norm_rule, group_norm_rule, layer_norm_rule
from .products import attention_rule, conv_rule, einsum_rule, linear_rule, matmul_rule
from .reductions import REDUCTIONS, SHAPE_KEEPING, WINDOWS, reduction_rule, shape_keeping_rule, window_rule

Rule = Callable[[Context, fx.Node], Result]

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(LITERAL, literal_rule),
    **dict.fromkeys(REDUCTIONS, reduction_rule),
    **dict.fromkeys(SHAPE_KEEPING, shape_keeping_rule),
    "pad": pad_rule,
    "constant_pad_nd": pad_rule,
    "cat": cat_rule,
    "concat": cat_rule,
    "stack": cat_rule,
    "prelu": prelu_rule,
    **{f"conv{n}d": conv_rule for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": conv_rule for n in (1, 2, 3)},
    "convolution": conv_rule,
    "linear": linear_rule,
    "matmul": matmul_rule,
    "mm": matmul_rule,
    "bmm": matmul_rule,
    "einsum": einsum_rule,
    "scaled_dot_product_attention": attention_rule,
    "batch_norm": batch_norm_rule,
    "_native_batch_norm_legit_no_training": batch_norm_rule,
    "instance_norm": batch_norm_rule,
    "layer_norm": layer_norm_rule,
    "group_norm": group_norm_rule,
    "getitem": getitem_rule,
}


def rule_for(node: fx.Node, rules: Mapping[str, Rule] = RULES) -> Rule:
    """The rule of a node: by name, by PyTorch's element-by-element tag, else the freezing one."""
    name = packet(node)
    if name in rules:
        return rules[name]
    if name.startswith(WINDOWS):
        return window_rule
    return pointwise_rule if is_pointwise(node) else unknown
