"""Quantization-aware training: quantizers whose parameters are trained together with the weights."""
