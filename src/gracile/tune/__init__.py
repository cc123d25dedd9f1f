"""TODO-package-docstring tune."""
