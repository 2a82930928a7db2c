"""The command line on a disk so slow that a test can kill it in mid-step."""

SLOWLY = """
import sys, time
from zarr.storage import LocalStore
whole = LocalStore.set
async def slowly(store, key, value):
    if "/motion-" in key:
        time.sleep(0.05)
    await whole(store, key, value)
LocalStore.set = slowly
sys.argv = ["tiltflow", *sys.argv[1:]]
from flows.cli import main
main()
"""
