"""Run a .tflite file with LiteRT, in a process of its own."""
