"""TODO-package-docstring data."""
