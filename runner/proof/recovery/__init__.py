"""From a ``.tflite`` back to a checkpoint, and forward again."""
