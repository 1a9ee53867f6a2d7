"""Download and unpack published files; nothing is used before it is verified."""
