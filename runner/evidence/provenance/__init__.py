"""Write, read and verify the provenance of a converted file."""
