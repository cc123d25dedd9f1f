"""What deployment runtimes do with a model, as plain data without torch."""

from .target import TARGETS as TARGETS
from .target import IntegerFormat as IntegerFormat
from .target import Target as Target
