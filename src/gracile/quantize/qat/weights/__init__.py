"""Quantizers of weights for training, one file each."""

from .base import WeightQuantizer as WeightQuantizer
