"""The ``gracile`` command: one file a verb; torch is imported only by verbs that compute."""

from .main import main as main
