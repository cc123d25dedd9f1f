"""TODO-package-docstring fold."""
