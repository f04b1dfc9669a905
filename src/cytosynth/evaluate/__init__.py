"""Every measure, with its real-vs-real floor and its interval."""
