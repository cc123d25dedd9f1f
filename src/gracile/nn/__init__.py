"""TODO-package-docstring nn."""
