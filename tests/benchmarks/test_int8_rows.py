"""The time that quantization takes is the median of ratios, each within one turn."""

from torch import nn

from benchmarks.int8 import Case, quantization_rows

TURN = {"export float": 2.0, "prepare": 1.0, "quantize_static": 4.0, "ptq": 6.0, "export": 3.0}


def test_the_median_of_paired_ratios() -> None:
    case = Case(name="net", model=nn.Identity(), folds=(), batch=1)
    turns = [TURN | {"ptq": seconds} for seconds in (4.0, 5.0, 6.0, 7.0, 8.0, 12.0, 2.0)]
    (alone,) = quantization_rows(case, turns)
    assert alone.id == "int8.net.quantization_time_over_quantize_static"
    assert (alone.value, alone.n, alone.spread) == (1.5, 7, (0.5, 3.0))


def test_more_than_twice_the_time_misses_the_bar() -> None:
    case = Case(name="net", model=nn.Identity(), folds=(), batch=1)
    assert not quantization_rows(case, [TURN | {"ptq": 8.1}] * 6)[0].ok
