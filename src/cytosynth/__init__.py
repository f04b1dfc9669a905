"""CytoSynth: annotated synthetic cervical cytology by two-stage latent diffusion (arXiv 2402.14707)."""

__version__ = "0.1.0"
