"""This machine: the cache folder, digests, folders that the toolchain may see, the output directory."""
