"""Data sets by name, as a training part and a test part that hand out whole batches."""

from .augment import random_crop_flip as random_crop_flip
from .bundle import DataBundle as DataBundle
from .cifar10 import cifar10 as cifar10
from .digits import digits as digits
from .folder import FolderData as FolderData
from .folder import image_folder as image_folder
from .load import DATA as DATA
from .load import find_root as find_root
from .load import load_data as load_data
from .mnist import mnist as mnist
from .tensor_data import TensorData as TensorData
