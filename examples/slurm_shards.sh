#!/usr/bin/env bash
# A data set by a Slurm job array: task I of N makes shard I/N; a last job, which waits for all of them, merges.
#
#   export OUT=/shared/synthetic COUNT=100000 SHARDS=100 GATE=nucleus
#   sbatch --array=1-"$SHARDS"%20 examples/slurm_shards.sh          # 20 at a time
#   sbatch --dependency=afterok:JOB_ID examples/slurm_shards.sh      # JOB_ID: what the first line printed
#
# A task that was lost, preempted or out of time continues when its line is submitted again: --array=7,31.
# DRY_RUN=1 prints the command of a task and runs nothing.
#SBATCH --job-name=cytosynth
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
set -euo pipefail

: "${OUT:?folder on a file system that all nodes share}" "${COUNT:?images in all}" "${SHARDS:?tasks in the array}"
GATE=${GATE:-none}
DEVICE=${DEVICE:-cpu}

# The same number of threads in every task, so that the shards have the bytes of an undivided run with that number.
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-4}

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    command=(cytosynth synthesize "$OUT.shards/$SLURM_ARRAY_TASK_ID" --count "$COUNT" --gate "$GATE" --device "$DEVICE"
             --shard "$SLURM_ARRAY_TASK_ID/$SHARDS")
else
    shards=()
    for number in $(seq 1 "$SHARDS"); do shards+=("$OUT.shards/$number"); done
    command=(cytosynth merge "$OUT" "${shards[@]}")
fi

if [ -n "${DRY_RUN:-}" ]; then
    printf '%s' "OMP_NUM_THREADS=$OMP_NUM_THREADS"
    printf ' %q' "${command[@]}"
    printf '\n'
else
    exec "${command[@]}"
fi
