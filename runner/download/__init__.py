"""Download and unpack published files. Everything is verified before it is used."""
