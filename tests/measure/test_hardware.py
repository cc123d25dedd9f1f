"""The description of the machine."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from gracile.measure import hardware, usable_cores, versions
from gracile.measure.hardware import _cpuinfo


def test_is_plain_data() -> None:
    found = hardware()
    assert json.loads(json.dumps(found)) == found
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] == usable_cores()
    assert found["memory_gb"] > 0
    assert found["isa"]


def test_versions_are_those_installed() -> None:
    found = versions()
    assert found["torch"] == version("torch")
    assert found["onnxruntime"] == version("onnxruntime")
    assert "python" in found
    assert "no_such_package" not in found


def test_cpuinfo_by_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = (
        "processor\t: {}\nmodel name\t: Some CPU\nphysical id\t: 0\ncore id\t\t: {}\n"
        "flags\t\t: fpu avx2 avx512_vnni amx_int8\n"
    )
    (tmp_path / "cpuinfo").write_text("\n".join(block.format(i, i // 2) for i in range(4)))
    info = _cpuinfo(tmp_path / "cpuinfo")
    assert len(info) == 4
    assert _cpuinfo(tmp_path / "nothing") == []
    monkeypatch.setattr(sys.modules[hardware.__module__], "_cpuinfo", lambda: info)
    found = hardware()
    assert found["processor"] == "Some CPU"
    assert found["cores_physical"] == 2
    assert found["isa"] == ["avx2", "avx512_vnni", "amx_int8"]
