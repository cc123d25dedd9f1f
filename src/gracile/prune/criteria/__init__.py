"""How channels are ranked: one file a criterion, and what several of them share."""
