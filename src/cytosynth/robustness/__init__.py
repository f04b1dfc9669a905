"""Robustness of detectors: every variation at five strengths, other centres, and controlled edits of single cells."""
