"""`evaluate cells`: whether edited cells become their class."""
