"""TODO-package-docstring surgery."""
