"""What one worker does with one unit: read Zarr or a movie, call kernels, write Zarr.

These functions run on Dask workers. They take results, records and numbers, return a small
report, and import no Prefect, which would cost every worker a second of start-up.
"""
