"""Retrieval, fine-tuning, or both: scores, costs and a recommendation, from a case and prices alone."""
