"""What keeps or rejects an edited cell: gate, classifier, seam, morphology."""
