"""Convert many checkpoints: job lists, one machine, shards, a Dask cluster."""
