"""Making whole slides: one coherent field of any size, cells edited on it, a pyramid that viewers open."""
