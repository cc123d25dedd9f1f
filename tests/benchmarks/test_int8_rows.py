"""The time that quantization takes is the median of paired ratios."""

from torch import nn

from benchmarks.int8 import Case, quantization_row


def test_quantization_time_is_the_median_ratio_of_its_pairs() -> None:
    case = Case(name="net", model=nn.Identity(), folds=(), batch=1)
    pairs = [(2.0, 1.0), (3.0, 2.0), (2.0, 4.0), (3.0, 3.0), (1.0, 1.0), (1.0, 1.0), (9.0, 3.0)]
    row = quantization_row(case, pairs)
    assert row.id == "int8.net.quantization_time_over_quantize_static"
    assert (row.value, row.n, row.spread) == (1.0, 7, (0.5, 3.0))
    assert row.ok


def test_more_than_twice_the_time_misses_the_bar() -> None:
    case = Case(name="net", model=nn.Identity(), folds=(), batch=1)
    assert not quantization_row(case, [(2.1, 1.0)] * 6).ok
