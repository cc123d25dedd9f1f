"""Watching a model over batches: what hands batches out, and what is summed up while they pass."""

from .batches import Augmentation as Augmentation
from .batches import Batches as Batches
from .batches import DatasetBatches as DatasetBatches
from .batches import as_batches as as_batches
from .batches import batch_order as batch_order
from .batches import holdout_indices as holdout_indices
from .calibration import Batch as Batch
from .calibration import Calibration as Calibration
from .calibration import batches_of as batches_of
from .calibration import chunks as chunks
from .calibration import joined as joined
from .devices import bfloat16_autocast as bfloat16_autocast
from .devices import device_of as device_of
from .devices import fast_bfloat16 as fast_bfloat16
from .divergence import Outputs as Outputs
from .divergence import divergence as divergence
from .divergence import outputs as outputs
from .modes import evaluating as evaluating
from .processor import lacks_vnni as lacks_vnni
from .ranges import Histogram as Histogram
from .raw import raw_bytes as raw_bytes
