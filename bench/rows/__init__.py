"""Figures, measured in pairs: what is compared ran in turn, in the same minutes, on the same files."""
