"""TODO-package-docstring observe."""
