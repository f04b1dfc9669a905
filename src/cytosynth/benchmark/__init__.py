"""How long synthesis takes, by stage and against diffusers: what `cytosynth benchmark` measures."""
