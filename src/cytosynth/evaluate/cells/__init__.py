"""`evaluate cells`: whether edited cells look like their category."""
