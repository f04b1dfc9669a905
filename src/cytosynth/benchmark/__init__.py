"""The time of synthesis, by stage and compared with diffusers: `cytosynth benchmark`."""
