"""Stage 1, Global Image Generation: the Normal Image Generator (Section III-B)."""
