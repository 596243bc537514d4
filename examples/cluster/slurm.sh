#!/usr/bin/env bash
#SBATCH --job-name=rw-keras
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
# Describes photos on four machines:
#
#   sbatch slurm.sh /shared/photos /shared/indices/my_photos
#
# All see /shared, and `rw-keras` is on the path (pip install "rw_keras[ray]"). A job that ran out of time goes on where it was when it
# is handed in again. Ray has no login: on machines that others use meanwhile, ask for them alone (--exclusive).
set -euo pipefail
photos=$1 index=$2
port=${RW_KERAS_PORT:-6379}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')
export RAY_USAGE_STATS_ENABLED=0

srun --nodes=1 --ntasks=1 -w "$head" \
    ray start --head --block --node-ip-address="$address" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false &
for _ in $(seq 60); do
    timeout 1 bash -c "</dev/tcp/$address/$port" 2>/dev/null && break
    sleep 1
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --block --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" &
fi
sleep "${RW_KERAS_WAIT:-15}" # until all have come; those that come later take work as well

srun --overlap --nodes=1 --ntasks=1 -w "$head" rw-keras index "$photos" -o "$index" --cluster "$address:$port"
