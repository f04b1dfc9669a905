"""How good, how diverse and how memorised generated images are (Section IV-B, Table I)."""
