"""TODO-package-docstring report."""
