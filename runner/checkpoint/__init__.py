"""TF1 checkpoints: find, read, compare, fetch."""
