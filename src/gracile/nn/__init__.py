"""Modules that Gracile puts into models: quantizers and what a runtime executes in integers.

What belongs here runs in a forward pass and knows how to write itself into an ONNX file.
"""

from .affine import dequantize as dequantize
from .affine import fake_quantize as fake_quantize
from .affine import quantize as quantize
from .quantized_model import QuantizedModel as QuantizedModel
from .quantizers import ActivationQuantizer as ActivationQuantizer
from .quantizers import QuantizedBias as QuantizedBias
from .quantizers import QuantizedWeight as QuantizedWeight
from .spatial_mean import SpatialMean as SpatialMean
from .zero_branch import ZeroBranch as ZeroBranch
