"""What a result is worth: provenance, the check against the graph, the proof of the toolchain, in words."""
