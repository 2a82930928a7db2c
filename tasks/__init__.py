"""Processing steps on disk: each reads Zarr, scatters chunks over Dask workers, writes Zarr."""

from tasks import environment

environment.prepare()
