"""The training loop of all trainers: recipes, checkpoints, exact resume, progress. It does not depend on the task."""
