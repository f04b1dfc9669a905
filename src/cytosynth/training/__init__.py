"""The one training loop: recipes, checkpoints, exact resume, progress. Knows nothing of what it trains."""
