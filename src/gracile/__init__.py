"""Gracile makes a trained PyTorch network smaller and faster and proves what it did."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("gracile")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
