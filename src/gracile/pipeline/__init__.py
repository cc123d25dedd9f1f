"""TODO-package-docstring pipeline."""
