"""TensorFlow 1 checkpoints: find, read, compare, fetch."""
