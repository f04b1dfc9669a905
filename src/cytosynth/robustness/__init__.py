"""How detectors hold up: every variation at five strengths, other centres, and one cell edited under control."""
