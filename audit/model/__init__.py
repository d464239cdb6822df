"""The embedded model: fetched from its package, checked and converted."""
