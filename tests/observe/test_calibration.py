"""Calibration inputs in every form that they come in, and what is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from gracile.errors import BadArgument, NonFiniteError
from gracile.observe import Calibration, batches_of, chunks, joined
from gracile.observe.batchnorm import reestimate_

X = torch.randn(96, 2, generator=torch.Generator().manual_seed(0))


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


FORMS: dict[str, Callable[[], Calibration]] = {
    "one tensor": lambda: X,
    "tensors": lambda: X.split(7),
    "tuples": lambda: [(part,) for part in X.split(50)],
    "lists": lambda: DataLoader(TensorDataset(X), batch_size=7),
    "stream": lambda: DataLoader(Stream(), batch_size=7),
    "generator": lambda: (part for part in X.split(7)),
    "with an empty batch": lambda: [X[:50], X[:0], X[50:]],
}


@pytest.mark.parametrize("form", FORMS)
def test_any_way_of_giving_data_gives_the_same_batches(form: str) -> None:
    assert torch.equal(joined(FORMS[form]())[0], X)
    found = chunks(FORMS[form](), 40)
    assert [len(b[0]) for b in found] == [40, 40]
    assert torch.equal(torch.cat([b[0] for b in found]), X[:80])


@pytest.mark.parametrize("form", FORMS)
def test_norms_take_them_all(form: str) -> None:
    norm = nn.BatchNorm1d(2)
    reestimate_(norm, FORMS[form]())
    torch.testing.assert_close(norm.running_mean, X.mean(0))
    torch.testing.assert_close(norm.running_var, X.var(0))


def test_several_inputs_stay_together() -> None:
    pairs = [(X[:7], X[:7] + 1), [X[7:20], X[7:20] + 1]]
    first, second = joined(pairs)
    assert torch.equal(first, X[:20])
    assert torch.equal(second, X[:20] + 1)


def test_a_tensor_is_cut_into_batches() -> None:
    assert [len(x) for (x,) in batches_of(torch.zeros(130, 2))] == [64, 64, 2]


def test_batches_go_where_the_model_lies() -> None:
    model = nn.Linear(2, 1, device="meta")
    assert [x.device.type for (x,) in batches_of(X.split(50), model)] == ["meta", "meta"]


@pytest.mark.parametrize("given", [[], torch.zeros(0, 2), [torch.zeros(0, 2)], iter(())])
def test_no_data_is_refused(given: Calibration) -> None:
    with pytest.raises(BadArgument, match="calibration: wanted at least one input"):
        chunks(given, 4)


@pytest.mark.parametrize(
    ("batch", "found"),
    [([X, X], "a list of Tensor, Tensor"), ((), "a tuple of nothing"), (3, "a int of int"), ("x", "a str")],
)
def test_what_the_model_does_not_take_is_refused(batch: Tensor, found: str) -> None:
    with pytest.raises(BadArgument, match=rf"batches of 1 tensor, .*{found}.*Leave labels out"):
        list(batches_of([batch], takes=1))


def test_batches_of_one_kind() -> None:
    with pytest.raises(BadArgument, match="batches of 1 tensor, "):
        joined([X, (X, X)])
    with pytest.raises(BadArgument, match="tuple of nothing"):
        joined([()])
    with pytest.raises(BadArgument, match="batches: wanted at least one input"):
        reestimate_(nn.BatchNorm1d(2), [])


def test_inputs_that_are_no_numbers_are_counted_and_refused() -> None:
    images = torch.zeros(4, 2)
    images[3, 1] = float("nan")
    with pytest.raises(NonFiniteError, match="calibration: wanted numbers, found NaN in 1 of 4 inputs"):
        joined([images])
    labels = torch.zeros(4, dtype=torch.int64)
    assert torch.equal(joined([labels])[0], labels)
