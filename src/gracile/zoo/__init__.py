"""TODO-package-docstring zoo."""
