"""Renderings of a scan result: one file a format."""
