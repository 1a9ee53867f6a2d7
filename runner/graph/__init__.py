"""Normalize and compare TensorFlow graphs."""
