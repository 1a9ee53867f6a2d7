"""The host machine: cache folder, file digests, folders to mount, output directory, processor features."""
