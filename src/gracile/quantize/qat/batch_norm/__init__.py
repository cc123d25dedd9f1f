"""Where batch norm stands while quantized weights train. One file each.

Source of the comparison: Li, Shen, Ma, Ren, Zhao, Zhang, Gong, Yu and Yan, "MQBench: towards reproducible and
deployable model quantization benchmark", NeurIPS 2021 Datasets and Benchmarks, arXiv 2111.03759.
"""

from .base import Deployed as Deployed
from .base import QatLayer as QatLayer
