"""One processing step each: read Zarr, scatter chunks over Dask workers, write Zarr."""
