"""Which number formats a device computes fast."""

import platform

import pytest
import torch
from torch import nn

from gracile import measure
from gracile.observe import bfloat16_autocast, devices, fast_bfloat16

CPU = torch.device("cpu")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 instruction sets")
def test_bfloat16_is_fast_where_the_system_names_its_instructions() -> None:
    assert fast_bfloat16(CPU) == bool({"avx512_bf16", "amx_bf16"} & set(measure.hardware()["isa"]))


@pytest.mark.parametrize(("fast", "wanted", "found"), [
    (True, None, torch.bfloat16), (False, None, torch.float32),
    (False, True, torch.bfloat16), (True, False, torch.float32),
])  # fmt: skip
def test_without_a_word_bfloat16_is_taken_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, fast: bool, wanted: bool | None, found: torch.dtype
) -> None:
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: fast)
    with bfloat16_autocast(CPU, wanted):
        assert nn.Linear(2, 1)(torch.zeros(1, 2)).dtype == found


def test_a_processor_of_another_kind_is_asked_by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert fast_bfloat16(CPU) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
