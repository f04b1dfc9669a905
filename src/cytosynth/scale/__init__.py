"""Runs that outgrow one machine: shards and their merging, several processes by Ray."""
