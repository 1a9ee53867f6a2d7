"""Plan a run and deliver its files to the output directory, from the cache or by converting."""
