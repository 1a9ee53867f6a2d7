"""Recover a checkpoint from a ``.tflite``, and prove the file by converting the checkpoint."""
