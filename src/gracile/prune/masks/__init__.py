"""Weights set to zero: what counts as one (weight, kernel, block, n of m), how it is ranked, the plan."""
