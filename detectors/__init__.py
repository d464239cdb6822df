"""Detectors: rows and signatures to findings. Knows no file and no engine."""
