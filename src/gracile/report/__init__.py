"""A run as one HTML file that needs nothing else: no torch to write it, no network to read it."""

from .html import html as html
from .html import write as write
