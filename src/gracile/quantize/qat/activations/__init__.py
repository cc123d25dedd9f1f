"""Quantizers of activations for training, one file each."""

from .base import TrainableActivation as TrainableActivation
