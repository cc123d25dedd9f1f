"""Contracts that every technique keeps, for our own and for yours, and tiny networks to run them on."""

from .contract import Outcome as Outcome
from .contract import Technique as Technique
from .contract import TechniqueContract as TechniqueContract
from .contract import adds_up as adds_up
from .nets import NETS as NETS
from .nets import net as net
