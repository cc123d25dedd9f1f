"""Calibration inputs in every form that they come in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from gracile.errors import BadArgument
from gracile.observe import Calibration
from gracile.quantize import Bits, Blocks, Scheme, noise, overflow_report, ptq, sensitivity
from gracile.quantize.calibration import float32_batches

X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()


FORMS: dict[str, Calibration] = {
    "tuples": [(X[:4],), (X[4:],)],
    "lists": DataLoader(TensorDataset(X), batch_size=4),
    "stream": DataLoader(Stream(), batch_size=4),
    "half precision": [part.double() for part in X.split(4)],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same(form: str) -> None:
    found = list(float32_batches(FORMS[form], small()))
    assert [len(batch) for batch in found] == [1, 1]
    assert all(torch.equal(a, b) for (a,), b in zip(found, X.split(4), strict=True))


def test_batches_go_where_the_model_lies() -> None:
    assert [x.device.type for (x,) in float32_batches([X], small().to("meta"))] == ["meta"]


def test_one_tensor_is_cut_into_batches() -> None:
    assert [len(x) for (x,) in float32_batches(torch.zeros(130, 2), small())] == [64, 64, 2]


def test_tensors_of_inference_mode_can_be_learned_on() -> None:
    with torch.inference_mode():
        data = torch.ones(2, 3)
    ((x,),) = float32_batches([data], small())
    assert not x.is_inference()


@pytest.mark.parametrize(
    ("batch", "found"), [([X, X], "a list of Tensor, Tensor"), ((), "a tuple of nothing"), ("x", "str")]
)
def test_what_the_model_does_not_take_is_refused(batch: object, found: str) -> None:
    with pytest.raises(BadArgument, match=rf"batches of 1 tensor, .*{found}.*Leave labels out"):
        list(float32_batches([batch], small()))  # type: ignore[list-item]
    with pytest.raises(BadArgument, match="batches of 2 tensors"):
        list(float32_batches([X], small(), inputs=2))


def test_all_that_reads_batches_takes_what_a_loader_gives() -> None:
    model, loader = small(), DataLoader(TensorDataset(X), batch_size=4)
    learn = Blocks(iterations=1, images=8, bf16=False)
    quantized = ptq(model, (X[:1],), loader, Scheme(weight_bits=4, ends=Bits(), rounding=learn))
    assert ptq(model, (X[:1],), loader, Scheme(bias_correction=True)).plan.weights
    assert sensitivity(model, (X[:1],), loader, bits=(8, 2)).images == 8
    assert noise(quantized, loader).images == overflow_report(quantized, loader).images == 8
