"""Export: the file that gets deployed, which kernels a runtime gives it, and whether it computes the same.

What belongs here turns a module into a file or reads such a file back; it writes nothing into models.
"""

from .kernels import asked_bits as asked_bits
from .kernels import kernels as kernels
from .onnx_file import onnx as onnx
from .parity import first_apart as first_apart
from .parity import output_steps as output_steps
from .parity import parity as parity
from .unsigned_weights import unsigned_weights as unsigned_weights
