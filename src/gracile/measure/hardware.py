"""What the figures were measured on, as plain data."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    "gracile",
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxruntime",
    "openvino",
    "numpy",
    "accelerate",
)

# What int8, bfloat16 and vector code depend on; names as Linux gives them.
_ISA = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that figures depend on.

    Example:
        >>> versions()["python"] == platform.python_version()
        True
    """
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, threads, memory, instruction sets, system and accelerator.

    ``cores`` is how many this process may use, ``cores_physical`` how many the machine shows (None where
    it does not tell), ``threads`` what PyTorch is set to, ``isa`` the instruction sets that matter to
    integer and half-precision arithmetic.

    Example:
        >>> hardware()["cores"] >= 1
        True
    """
    info = _cpuinfo()
    cores = {(entry.get("physical id"), entry.get("core id")) for entry in info if "core id" in entry}
    first = info[0] if info else {}
    flags = (first.get("flags") or first.get("Features") or "").split()
    return {
        "processor": first.get("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "cores_physical": len(cores) or None,
        "threads": torch.get_num_threads(),
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "isa": [name for name in _ISA if name in flags] or [torch.backends.cpu.get_cpu_capability()],
        "system": f"{platform.system()} {platform.release()}",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def usable_cores() -> int:
    """Logical processors that this process may run on.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo(path: Path = Path("/proc/cpuinfo")) -> list[dict[str, str]]:
    """One dictionary for each logical processor; empty where the system has no such file."""
    try:
        blocks = path.read_text().strip().split("\n\n")
    except OSError:
        return []
    lines = ([line.partition(":") for line in block.splitlines()] for block in blocks)
    return [{key.strip(): value.strip() for key, _, value in block} for block in lines]


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
