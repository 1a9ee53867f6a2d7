"""Turn what the user asked for into files in an output directory, converted now or taken from the cache."""
