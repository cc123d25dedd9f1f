"""Numbers as people read them, the same in the terminal, the verdict and the report."""

from __future__ import annotations

RUNTIMES = {"torch": "PyTorch", "ort": "ONNX Runtime", "openvino": "OpenVINO"}
"""How a runtime is called in sentences."""


def runtime_text(runtime: str) -> str:
    """Name a runtime.

    Example:
        >>> runtime_text("ort")
        'ONNX Runtime'
    """
    return RUNTIMES.get(runtime, runtime)


def bytes_text(count: int) -> str:
    """Write a size in decimal units.

    Example:
        >>> bytes_text(853_018), bytes_text(3_411_000), bytes_text(512)
        ('853 kB', '3.41 MB', '512 B')
    """
    return _scaled(count, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))) or f"{count} B"


def count_text(count: float) -> str:
    """Write a count with M or G.

    Example:
        >>> count_text(125_485_706), count_text(853_018), count_text(1_250)
        ('125 M', '853 k', '1.25 k')
    """
    return _scaled(count, (("G", 1e9), ("M", 1e6), ("k", 1e3))) or f"{count:g}"


def number_text(value: float) -> str:
    """Write a number with three digits that count and thousands separated.

    Example:
        >>> number_text(12345.6), number_text(9.8765), number_text(0.01234)
        ('12,346', '9.88', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio_text(ratio: float) -> str:
    """Write how many times as much.

    Example:
        >>> ratio_text(2.345), ratio_text(0.876), ratio_text(12.34)
        ('2.3x', '0.88x', '12.3x')
    """
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x"


def seconds_text(seconds: float) -> str:
    """Write a duration.

    Example:
        >>> seconds_text(0.034), seconds_text(8.27), seconds_text(754.0)
        ('34 ms', '8.3 s', '12 min 34 s')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    for unit, size in units:
        if value >= size:
            scaled = value / size
            return f"{scaled:.0f} {unit}" if scaled >= 100 else f"{scaled:.3g} {unit}"
    return ""
