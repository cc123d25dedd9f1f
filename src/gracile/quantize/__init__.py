"""TODO-package-docstring quantize."""
