"""Check that a .tflite computes what its frozen graph computes."""
