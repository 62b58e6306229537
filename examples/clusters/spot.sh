#!/bin/bash
# Spot machines: start this on each of them, with HEAD naming one that stays. One to four machines train; when one goes
# or comes, torchrun starts all processes again and train.resume=auto continues from the last whole checkpoint.
export OMP_NUM_THREADS=1
torchrun --nnodes=1:4 --nproc-per-node=8 --max-restarts=1000 \
  --rdzv-backend=c10d --rdzv-id=shoes --rdzv-endpoint="${HEAD:?names the machine that stays}:29400" \
  -m gcl train trainer=ddp train.resume=auto train.checkpoint_every=200 run_dir=/shared/runs/shoes \
  cache_dir=/shared/prepared data=my_catalog model=siglip-B train.batch_size=16384
