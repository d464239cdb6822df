"""Engines behind the `signatures.language_model.LanguageModel` protocol."""
