"""Models by name: our own small networks, torchvision's, timm's and the user's, with their weights.

Nothing here downloads: pretrained weights come from a file that the user names.
"""

from .cifar_quick import CifarQuick as CifarQuick
from .cifar_quick import cifar_quick as cifar_quick
from .cifar_resnet import BasicBlock as BasicBlock
from .cifar_resnet import CifarResNet as CifarResNet
from .cifar_resnet import PadShortcut as PadShortcut
from .cifar_resnet import resnet20 as resnet20
from .cifar_resnet import resnet20b as resnet20b
from .cifar_resnet import resnet32 as resnet32
from .cifar_resnet import resnet44 as resnet44
from .cifar_resnet import resnet56 as resnet56
from .cifar_resnet import resnet56b as resnet56b
from .cifar_resnet import resnet110 as resnet110
from .demo_net import DemoNet as DemoNet
from .demo_net import demo_net as demo_net
from .inputs import example_inputs as example_inputs
from .inputs import input_shape as input_shape
from .lenet import LeNet as LeNet
from .lenet import lenet as lenet
from .lenet_cifar import LeNetCifar as LeNetCifar
from .lenet_cifar import lenet_cifar as lenet_cifar
from .models import MODELS as MODELS
from .models import load_model as load_model
from .speech_nets import LidNet as LidNet
from .speech_nets import SadNet as SadNet
from .speech_nets import lid as lid
from .speech_nets import sad as sad
from .vgg import CifarVgg as CifarVgg
from .vgg import vgg19 as vgg19
from .weights import check_finite as check_finite
from .weights import load_weights as load_weights
from .weights import read_weights as read_weights
from .wide_resnet import WideBlock as WideBlock
from .wide_resnet import WideResNet as WideResNet
from .wide_resnet import wrn16_2 as wrn16_2
from .wide_resnet import wrn28_10 as wrn28_10
