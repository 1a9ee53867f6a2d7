"""The provenance of a file: write it, read it, verify it."""
