"""Whether synthetic data help a detector: the experiment of Tables II and III, its trials, gains and leak checks."""
