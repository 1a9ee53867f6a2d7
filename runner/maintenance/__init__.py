"""Maintain a machine: ``doctor`` checks the requirements, ``clean`` removes this program's files."""
