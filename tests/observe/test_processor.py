"""What the processor says it can do."""

import platform

import pytest
import torch

from gracile import measure
from gracile.observe import lacks_vnni


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 instruction sets")
def test_vnni_is_lacking_where_the_system_names_none() -> None:
    assert lacks_vnni() == (not {"avx512_vnni", "avx_vnni"} & set(measure.hardware()["isa"]))


def test_other_processors_lack_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not lacks_vnni()


@pytest.mark.parametrize("has", [False, True])
def test_an_older_torch_is_asked_too(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: has)
    assert lacks_vnni() is not has
