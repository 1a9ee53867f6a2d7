"""Convert many checkpoints: from job lists, on one machine, in shards, or on a Dask cluster."""
