"""Checks of this machine, and estimates for a training on it: `cytosynth doctor`."""
