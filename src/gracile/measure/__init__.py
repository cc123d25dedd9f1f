"""TODO-package-docstring measure."""
