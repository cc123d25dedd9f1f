"""Export: the file that gets deployed, which kernels a runtime gives it, and whether it computes the same.

What belongs here turns a module into a file or reads such a file back; it writes nothing into models.
"""

from .onnx_file import onnx_export as onnx
