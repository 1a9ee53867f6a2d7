"""Evidence about a converted file: its provenance, and the check that it computes what its graph computes."""
