"""TODO-package-docstring cli."""
