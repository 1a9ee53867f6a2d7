"""Run a .tflite file with LiteRT in a separate process."""
