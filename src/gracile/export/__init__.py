"""TODO-package-docstring export."""
