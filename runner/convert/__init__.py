"""The conversion pipeline: edited config, frozen graph, raw .tflite, fixed key order."""
