#!/usr/bin/env bash
# One training on several nodes: torchrun begins a process for each GPU, and PyTorch sums their gradients.
#
#   sbatch --nodes=2 --gpus-per-node=4 examples/slurm_training.sh RUN DATA_ROOT
#
# RUN and DATA_ROOT are on a file system that all nodes share. The same line again continues from the last checkpoint.
# DRY_RUN=1 prints the command and runs nothing.
#SBATCH --job-name=cytosynth-training
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --open-mode=append
set -euo pipefail

RUN=${1:?run folder} DATA_ROOT=${2:?folder of the data sets}
PROCESSES=${SLURM_GPUS_ON_NODE:-1}
HEAD=${SLURM_JOB_NODELIST:+$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}

command=(torchrun --nnodes "${SLURM_NNODES:-1}" --nproc-per-node "$PROCESSES"
         --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost}:29500" --rdzv-id "${SLURM_JOB_ID:-0}"
         -m cytosynth train normal "$RUN" --preset paper --data-root "$DATA_ROOT"
         --set "data=[{root: normal_fields, split: train}]" --set mixed_precision=bf16)

if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "${command[@]}"
    printf '\n'
else
    exec srun "${command[@]}"
fi
