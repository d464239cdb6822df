"""The steps of `audit.signature_learn`: count, compare prompts, learn a view, check it."""
