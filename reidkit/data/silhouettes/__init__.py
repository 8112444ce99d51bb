"""Silhouettes: aligning them, judging sequences, packing them into one store and reading it."""
