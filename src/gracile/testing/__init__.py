"""TODO-package-docstring testing."""
