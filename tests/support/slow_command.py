"""The command line with a disk that stops after the first unit of a step, for a test to kill it."""

SLOWLY = """
import sys, time
from zarr.storage import LocalStore
whole, step, units = LocalStore.set, sys.argv[1], set()
async def slowly(store, key, value):
    if f"/{step}-" in key and "/unit/" in key:
        units.add(key)
        time.sleep(3600 if len(units) > 1 else 0)
    await whole(store, key, value)
LocalStore.set = slowly
sys.argv = ["tiltflow", *sys.argv[2:]]
from flows.cli import main
main()
"""
