"""Whether edited cells are what they were meant to become: distances, a classifier's verdict, morphology."""
