"""Plans and results as plain frozen data: they print, compare, save as JSON and open without torch."""

from .cost import Cost as Cost
from .cost import LayerCost as LayerCost
from .files import atomic_bytes as atomic_bytes
from .files import atomic_write as atomic_write
from .files import sha256 as sha256
from .fold_plan import FoldPair as FoldPair
from .fold_plan import FoldPlan as FoldPlan
from .json import from_json as from_json
from .json import to_json as to_json
from .measurement import Accuracy as Accuracy
from .measurement import Comparison as Comparison
from .measurement import Ratio as Ratio
from .measurement import Speed as Speed
from .proof import Proof as Proof
from .prune_plan import AttributeEdit as AttributeEdit
from .prune_plan import GroupPlan as GroupPlan
from .prune_plan import ParamSlice as ParamSlice
from .prune_plan import PrunePlan as PrunePlan
from .quant_plan import EdgeQuant as EdgeQuant
from .quant_plan import QuantPlan as QuantPlan
from .quant_plan import WeightQuant as WeightQuant
from .run import Artifact as Artifact
from .run import Headline as Headline
from .run import Run as Run
from .run import StepRecord as StepRecord
from .skipped import Skipped as Skipped
