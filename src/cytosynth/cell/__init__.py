"""Stage 2, Local Cell Editing: the Abnormal Cell Synthesizer (Section III-C)."""
