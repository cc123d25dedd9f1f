"""Results of running: accuracy and its change, throughput and latency, bytes on disk, on what hardware.

Nothing here is estimated from structure; that is :mod:`gracile.graph`.
"""

from .accuracy import accuracy as accuracy
from .ci import median_ci as median_ci
from .compare import compare as compare
from .compare import difference_interval as difference_interval
from .hardware import hardware as hardware
from .hardware import usable_cores as usable_cores
from .hardware import versions as versions
from .layer_times import layer_times as layer_times
from .predict import outputs as outputs
from .predict import predictions as predictions
from .runtimes import RUNTIMES as RUNTIMES
from .runtimes import Runner as Runner
from .runtimes import openvino_runner as openvino_runner
from .runtimes import ort_runner as ort_runner
from .runtimes import ort_session as ort_session
from .runtimes import torch_runner as torch_runner
from .size import size_bytes as size_bytes
from .speed import Candidate as Candidate
from .speed import bench as bench
