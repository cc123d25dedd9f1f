"""Training after a change: a loop on Accelerate, and hooks that work in any loop."""

from .checkpoint import load_checkpoint as load_checkpoint
from .checkpoint import save_checkpoint as save_checkpoint
from .config import TuneConfig as TuneConfig
from .distillation import Distillation as Distillation
from .ema import Ema as Ema
from .evaluate import Score as Score
from .evaluate import evaluate as evaluate
from .hooks import Hook as Hook
from .hooks import Resumable as Resumable
from .loop import fit as fit
from .loss import CrossEntropy as CrossEntropy
from .loss import Loss as Loss
from .optimizer import OPTIMIZERS as OPTIMIZERS
from .optimizer import make_optimizer as make_optimizer
from .records import EpochRecord as EpochRecord
from .records import History as History
from .schedule import SCHEDULES as SCHEDULES
from .schedule import learning_rate as learning_rate
from .split import split as split
