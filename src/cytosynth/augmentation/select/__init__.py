"""How much and which synthetic data to add."""
