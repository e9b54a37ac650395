#!/bin/bash
#SBATCH --job-name=rlaifv
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
# The job of `machine/slurm`, for sbatch.
# Continues where it was, until it is done: exit code 75 says that the run was told to stop and has saved. Options of
# Slurm (nodes, tasks, GPUs, time) belong to sbatch, those of the run behind this file's name.
srun rlaifv fit "$@" --ckpt_path last
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
