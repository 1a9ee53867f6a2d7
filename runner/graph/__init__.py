"""Frozen graphs: their bytes and their differences."""
