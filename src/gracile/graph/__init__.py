"""What the captured graph tells: channel provenance, groups of channels that go together, cost by formula."""

from .capture import Captured as Captured
from .capture import capture as capture
from .capture import evaluating as evaluating
from .cost import cost as cost
from .dead import drop_dead as drop_dead
from .free_batch import capture_free_batch as capture_free_batch
from .groups import Group as Group
from .groups import Slot as Slot
from .provenance import Provenance as Provenance
from .provenance import trace as trace
from .rules import RULES as RULES
from .stand_in import stand_in as stand_in
from .trial import Trial as Trial
from .trial import difference as difference
