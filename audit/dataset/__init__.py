"""Readers: files of any supported format and schema to rows, with every reject counted."""
