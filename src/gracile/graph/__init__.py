"""TODO-package-docstring graph."""
