#!/bin/bash
# deployments/dask/worker.sh tcp://SCHEDULER:8786 [ADDRESS [WORKERS]]
#
# Workers of one machine, reached at ADDRESS: one for each GPU, or where there is none (or
# TILTFLOW_DEVICE=cpu) one for each core, or as many as WORKERS.
set -euo pipefail
scheduler=${1:?the address of the scheduler, tcp://HOST:PORT}
address=${2:-127.0.0.1}

export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1073741824 # memory that is freed is used again
export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False # to disk only beyond what steps plan with
export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=0.85 DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=0.9
if [ "${TILTFLOW_DEVICE:-}" != cpu ] && nvidia-smi -L >/dev/null 2>&1; then
    export TILTFLOW_DEVICE=cuda
    exec dask cuda worker --host "$address" --no-dashboard --resources GPU=1 "$scheduler"
fi
workers=${3:-$(nproc)}
threads=$(($(nproc) / workers))
((threads > 0)) || threads=1
export OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads MKL_NUM_THREADS=$threads
export NUMBA_NUM_THREADS=$threads
exec dask worker --host "$address" --no-dashboard --nthreads 1 --nworkers "$workers" "$scheduler"
