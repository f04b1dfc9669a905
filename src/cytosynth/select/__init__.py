"""How much and which synthetic data to add to the real images (asked for in Section V)."""
