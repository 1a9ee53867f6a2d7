"""What is known about a file: its provenance, and whether it computes what its graph computes."""
