"""Rebuild MLPerf Mobile's MobileDet .tflite files from their TF1 checkpoints."""

__version__ = "0.1.0"
