"""Criteria that accept or reject an edited cell: gate, classifier, seam, morphology."""
