"""What the processor's integer kernels can do."""

from __future__ import annotations

import platform

import torch

_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "avx10_1")
"""Instruction sets of x86 that multiply 8-bit numbers and add the products in 32 bits at once."""


def is_x86() -> bool:
    """Whether the processor is a 64-bit x86.

    Example:
        >>> is_x86() == (platform.machine().lower() in ("x86_64", "amd64"))
        True
    """
    return platform.machine().lower() in ("x86_64", "amd64")


def lacks_vnni() -> bool:
    """Whether this is an x86 processor whose 8-bit products are added in pairs of 16 bits.

    Without VNNI (before Intel's Cascade Lake and Alder Lake, AMD's Zen 4) the kernels of ONNX Runtime and of
    oneDNN, hence of OpenVINO and PyTorch, multiply by ``vpmaddubsw``: two products go into one signed 16-bit
    number, which stops at its end. Processors of ARM have no such limit.

    Example:
        >>> lacks_vnni() in (False, True)
        True
    """
    if not is_x86():
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.9; it knows no AVX-VNNI, which is the safe side
        return not torch.cpu._is_vnni_supported()
    can = torch.cpu.get_capabilities()
    return not any(can.get(name) for name in _DOT_PRODUCTS)
