"""Recover a checkpoint from a ``.tflite``, and convert it to show that the file can be reproduced."""
