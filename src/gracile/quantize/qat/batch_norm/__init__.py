"""Where batch norm stands while quantized weights train. One file each.

Source of the comparison: Li, Shen, Ma, Ren, Zhao, Zhang, Gong, Yu and Yan, "MQBench: towards reproducible and
deployable model quantization benchmark", NeurIPS 2021 Datasets and Benchmarks, arXiv 2111.03759.
"""

from .base import Deployed as Deployed
from .base import QatLayer as QatLayer
from .fold_and_drop import FoldAndDrop as FoldAndDrop
from .frozen import Frozen as Frozen
from .krishnamoorthi import Krishnamoorthi as Krishnamoorthi
from .named import SCHEMES_OF_BN as SCHEMES_OF_BN
from .no_norm import NoNorm as NoNorm
from .one_convolution import OneConvolution as OneConvolution
from .plain import Plain as Plain
from .two_convolutions import TwoConvolutions as TwoConvolutions
