"""Signatures: what a concept does to a model's token probabilities. Knows no data set."""
