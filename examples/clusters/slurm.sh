#!/bin/bash
#SBATCH --job-name=gcl --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8 --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=USR1@120
# Two minutes before the time limit all ranks save the same step, the job is queued again, and train.resume=auto goes on.
export OMP_NUM_THREADS=1
srun gcl train trainer=slurm train.resume=auto name=shoes data=my_catalog model=siglip-B train.batch_size=16384
srun gcl evaluate evaluate=marqo_ecommerce 'models=[siglip-B]' train.workers=8 out=outputs/marqo_ecommerce/siglip-B
