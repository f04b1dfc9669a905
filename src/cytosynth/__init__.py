"""CytoSynth: annotated synthetic cervical cytology by two-stage latent diffusion (arXiv 2402.14707)."""

import os

__version__ = "0.1.0"

# What is looked up at a hub, and only where a hub's id was asked for, is looked up without telling who looks.
for _switch in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ[_switch] = "1"
