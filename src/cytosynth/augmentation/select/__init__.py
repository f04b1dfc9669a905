"""Selecting how many and which synthetic images to add."""
