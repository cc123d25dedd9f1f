"""TODO-package-docstring prune."""
