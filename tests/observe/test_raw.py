"""Bytes for checksums: of any type, and the same however a tensor lies in memory."""

from __future__ import annotations

import pytest
import torch

from gracile.observe import raw_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_of_any_type_in_the_order_of_the_axes(dtype: torch.dtype) -> None:
    x = (torch.arange(24).reshape(1, 2, 3, 4) % 5).to(dtype)
    found = raw_bytes(x.to(memory_format=torch.channels_last))
    assert found == raw_bytes(x)
    assert len(found) == x.numel() * x.element_size()
    assert found != raw_bytes(x.flip(-1))


def test_of_a_single_number() -> None:
    assert raw_bytes(torch.tensor(1, dtype=torch.uint8)) == b"\x01"
