"""Evaluation mode for a while (defined where the graph is captured, which needs it first)."""

from gracile.graph import evaluating as evaluating
