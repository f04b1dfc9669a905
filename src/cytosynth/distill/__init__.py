"""Few steps: latent consistency distillation of both stages by LoRA (arXiv 2310.04378, 2311.05556)."""
