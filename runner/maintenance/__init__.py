"""Maintain a machine: ``doctor`` checks the requirements, ``clean`` removes the files of this program."""
