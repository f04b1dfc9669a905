"""Runs on several machines: shards and their merging, several processes by Ray."""
