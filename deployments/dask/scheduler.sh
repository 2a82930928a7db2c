#!/bin/bash
# deployments/dask/scheduler.sh [ADDRESS [PORT]]
#
# A Dask scheduler for `tiltflow run … --cluster tcp://ADDRESS:PORT`. It has no password: give an
# address of a private network, never one that the world reaches. By default, this machine's own.
set -euo pipefail
exec dask scheduler --host "${1:-127.0.0.1}" --port "${2:-8786}" --no-dashboard
