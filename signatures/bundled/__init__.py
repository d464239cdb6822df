"""The signature library that ships: data files only."""
