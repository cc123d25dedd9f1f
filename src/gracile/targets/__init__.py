"""TODO-package-docstring targets."""
