"""Safer data: strategies that change rows, and the pipeline that applies them."""
