"""Decomposition: a layer written as several smaller ones, where that is cheaper."""

from gracile.records import Bytes as Bytes
from gracile.records import Macs as Macs
from gracile.records import Params as Params

from .applying import BY_NAME as BY_NAME
from .applying import apply as apply
from .applying import apply_structure as apply_structure
from .applying import prove as prove
from .forms import CP as CP
from .forms import SVD as SVD
from .forms import Form as Form
from .forms import Space as Space
from .forms import Spatial as Spatial
from .forms import Tucker as Tucker
from .options import LayerTime as LayerTime
from .planning import FORMS as FORMS
from .planning import Energy as Energy
from .planning import plan as plan
from .sensitivity import sensitivity as sensitivity
from .timing import Milliseconds as Milliseconds
