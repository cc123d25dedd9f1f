"""Data sets by name, as a training part and a test part that hand out whole batches."""

from .audio_folder import audio_folder as audio_folder
from .augment import random_crop_flip as random_crop_flip
from .bundle import DataBundle as DataBundle
from .cifar10 import cifar10 as cifar10
from .digits import digits as digits
from .folder import FolderData as FolderData
from .folder import image_folder as image_folder
from .load import DATA as DATA
from .load import find_root as find_root
from .load import load_data as load_data
from .mixtures import mixtures as mixtures
from .mnist import fashion_mnist as fashion_mnist
from .mnist import mnist as mnist
from .sound_features import log_mel as log_mel
from .sound_features import mfcc as mfcc
from .speech import speech_lid as speech_lid
from .speech import speech_sad as speech_sad
from .tensor_data import TensorData as TensorData
from .windows import WindowData as WindowData
