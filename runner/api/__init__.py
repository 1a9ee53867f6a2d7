"""The Python API: `from runner import Runner`."""
