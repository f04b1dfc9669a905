"""Whether this machine is ready, and what a training will take here: what `cytosynth doctor` says."""
