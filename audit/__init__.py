"""Audits LLM fine-tuning data for subliminal traits: orchestration, input and output."""
