#!/bin/bash
#SBATCH --job-name=osim-rl
#SBATCH --account=research
#SBATCH --partition=gpu
#SBATCH --time=04:00:00
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=96
#SBATCH --mem=0
#SBATCH --output=/shared/runs/one/logs/rl-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@600
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH hetjob
#SBATCH --job-name=osim-rl
#SBATCH --account=research
#SBATCH --partition=gpu
#SBATCH --time=04:00:00
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=96
#SBATCH --mem=0
#SBATCH --output=/shared/runs/one/logs/rl-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@600
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH hetjob
#SBATCH --job-name=osim-rl
#SBATCH --account=research
#SBATCH --partition=cpu
#SBATCH --time=04:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --output=/shared/runs/one/logs/rl-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#
# rl in /shared/runs/one
# Rendered by osim. Every attempt runs this script from the start; each step runs in the background, so that the
# shell can take a signal meanwhile. Exit codes: 0 done, 2 configuration or input, 3 a gate failed, 4 stopped and
# resumable, anything else a crash.
set -uo pipefail

run=/shared/runs/one
python=/usr/bin/python3
attempt=${SLURM_RESTART_COUNT:-0}
max_requeues=20
notes=$run/launch/attempt-$SLURM_JOB_ID-$attempt
export PYTHONPATH=/shared/osim
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=12
export NCCL_SOCKET_IFNAME=bond0
export NCCL_IB_HCA=mlx5
export NCCL_IB_TIMEOUT=22
export NCCL_DEBUG=WARN
export GLOO_SOCKET_IFNAME=bond0
export CUDA_DEVICE_MAX_CONNECTIONS=1
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1
export HF_HUB_OFFLINE=1
# The rollout servers' key: of this attempt, in no file and on no command line.
read -r OSIM_ROLLOUT_API_KEY < <(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export OSIM_ROLLOUT_API_KEY
# The first node's address as Slurm knows it, and a port of this job's own.
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST_HET_GROUP_0" | head -n 1)
MASTER_ADDR=$(scontrol show node --oneliner "$first_node" | sed -n 's/.* NodeAddr=\([^ ]*\) .*/\1/p')
export MASTER_ADDR
export MASTER_PORT=$((15000 + (SLURM_JOB_ID * 16 + attempt * 2) % 15000))

wanted=run
pid=

note() {
  printf '%s %s %s %s\n' "$(date +%s)" "$SLURM_JOB_ID" "$attempt" "$*" >>"$run/launch/history"
}

# What a signal asks for. Preemption and cancellation signal the steps too, and Slurm requeues by itself.
# shellcheck disable=SC2317,SC2329  # the traps call it
ask() {
  wanted=$1
  note "asked to $1"
  touch "$run/stop"
}
trap 'ask requeue' USR1
trap 'ask end' TERM USR2

# PID: its exit status, however many signals arrive meanwhile.
await() {
  local status=0 last
  while kill -0 "$1" 2>/dev/null; do
    wait "$1"
    status=$?
  done
  wait "$1" 2>/dev/null
  last=$?
  ((last == 127)) || status=$last
  return "$status"
}

newest_checkpoint() {
  local found=("$run"/checkpoints/step-*)
  [[ -e ${found[-1]} ]] && printf '%s' "${found[-1]##*/}"
}

# Services do not count: the main step goes on without a lost server, or ends with a code of its own.
failed_with() {
  local step deciding=(preflight rank)
  for step in "${deciding[@]}"; do
    compgen -G "$notes/failed-$1-$step*" >/dev/null && return
  done
  return 1
}

# A busy controller may not answer at once.
again() {
  local pause_s words
  if ((attempt >= max_requeues)); then
    note "ended $1: no attempt left"
    exit "$1"
  fi
  note "requeued: $2"
  for pause_s in 1 4 10 0; do
    words=$(scontrol requeue "$SLURM_JOB_ID" 2>&1) && exit "$1"
    sleep "$pause_s"
  done
  note "ended $1: not requeued: ${words//$'\n'/ }"
  exit "$1"
}

cd /shared/osim || exit 2
mkdir -p "$notes" "$run/logs"
rm -f "$run/stop"
note "started on $SLURM_JOB_NODELIST"
before=$(newest_checkpoint)

# preflight
srun --het-group=0 --nodes=4 --ntasks=4 --ntasks-per-node=1 --cpus-per-task=96 --kill-on-bad-exit=1 \
    --output="$run/logs/preflight-step-%N.log" --open-mode=append \
    --container-image=/shared/images/osim.sqsh \
    --container-mounts=/shared/data:/shared/data:ro,/shared/models:/shared/models:ro,/shared/osim:/shared/osim:ro,/shared/runs/one:/shared/runs/one \
    --container-workdir=/shared/osim --no-container-mount-home \
    --container-env=MASTER_ADDR,MASTER_PORT,PYTHONPATH,PYTHONUNBUFFERED,OMP_NUM_THREADS,NCCL_SOCKET_IFNAME,NCCL_IB_HCA,NCCL_IB_TIMEOUT,NCCL_DEBUG,GLOO_SOCKET_IFNAME,CUDA_DEVICE_MAX_CONNECTIONS,TORCH_NCCL_ASYNC_ERROR_HANDLING,HF_HUB_OFFLINE \
    "$python" -m launch.allocation.torchrun 4 8 "$MASTER_ADDR" "$MASTER_PORT" \
    launch.allocation.rank "$run" "$notes" preflight launch.allocation.preflight /shared/runs/one "$notes" &
pid=$!
await "$pid"
status=$?
if ((status == 0)) && [[ $wanted == run ]]; then
  # server
  srun --het-group=1 --nodes=4 --ntasks=32 --ntasks-per-node=8 --cpus-per-task=12 --kill-on-bad-exit=0 \
    --output="$run/logs/server-step-%N.log" --open-mode=append \
    --container-image=/shared/images/osim.sqsh \
    --container-mounts=/shared/data:/shared/data:ro,/shared/models:/shared/models:ro,/shared/osim:/shared/osim:ro,/shared/runs/one:/shared/runs/one \
    --container-workdir=/shared/osim --no-container-mount-home \
    --container-env=MASTER_ADDR,MASTER_PORT,PYTHONPATH,PYTHONUNBUFFERED,OMP_NUM_THREADS,NCCL_SOCKET_IFNAME,NCCL_IB_HCA,NCCL_IB_TIMEOUT,NCCL_DEBUG,GLOO_SOCKET_IFNAME,CUDA_DEVICE_MAX_CONNECTIONS,TORCH_NCCL_ASYNC_ERROR_HANDLING,HF_HUB_OFFLINE \
    "$python" -m launch.allocation.rank "$run" "$notes" server launch.allocation.server /shared/runs/one "$notes" 32 &
  server=$!

  # coordinator
  srun --het-group=2 --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=12 --kill-on-bad-exit=0 \
    --output="$run/logs/coordinator-step-%N.log" --open-mode=append \
    --container-image=/shared/images/osim.sqsh \
    --container-mounts=/shared/data:/shared/data:ro,/shared/models:/shared/models:ro,/shared/osim:/shared/osim:ro,/shared/runs/one:/shared/runs/one \
    --container-workdir=/shared/osim --no-container-mount-home \
    --container-env=MASTER_ADDR,MASTER_PORT,PYTHONPATH,PYTHONUNBUFFERED,OMP_NUM_THREADS,NCCL_SOCKET_IFNAME,NCCL_IB_HCA,NCCL_IB_TIMEOUT,NCCL_DEBUG,GLOO_SOCKET_IFNAME,CUDA_DEVICE_MAX_CONNECTIONS,TORCH_NCCL_ASYNC_ERROR_HANDLING,HF_HUB_OFFLINE \
    "$python" -m launch.allocation.rank "$run" "$notes" coordinator launch.allocation.coordinator /shared/runs/one "$notes" 32 &
  coordinator=$!

  # rank
  srun --het-group=0 --nodes=4 --ntasks=4 --ntasks-per-node=1 --cpus-per-task=96 --kill-on-bad-exit=1 \
    --output="$run/logs/rank-step-%N.log" --open-mode=append \
    --container-image=/shared/images/osim.sqsh \
    --container-mounts=/shared/data:/shared/data:ro,/shared/models:/shared/models:ro,/shared/osim:/shared/osim:ro,/shared/runs/one:/shared/runs/one \
    --container-workdir=/shared/osim --no-container-mount-home \
    --container-env=MASTER_ADDR,MASTER_PORT,PYTHONPATH,PYTHONUNBUFFERED,OMP_NUM_THREADS,NCCL_SOCKET_IFNAME,NCCL_IB_HCA,NCCL_IB_TIMEOUT,NCCL_DEBUG,GLOO_SOCKET_IFNAME,CUDA_DEVICE_MAX_CONNECTIONS,TORCH_NCCL_ASYNC_ERROR_HANDLING,HF_HUB_OFFLINE \
    "$python" -m launch.allocation.torchrun 4 8 "$MASTER_ADDR" "$((MASTER_PORT + 1))" \
    launch.allocation.rank "$run" "$notes" rank launch.allocation.actor /shared/runs/one "$notes" &
  pid=$!
  await "$pid"
  status=$?

  # The services end when they see this file; what does not is ended with the job.
  touch "$notes/over"
  for ((i = 0; i < 60; i++)); do
    kill -0 "$server" "$coordinator" 2>/dev/null || break
    sleep 1
  done
elif ((status == 0)); then
  status=4
fi

if ((status == 0)); then
  note "ended 0"
  exit 0
fi
for known in 2 3; do
  if failed_with "$known"; then
    note "ended $known"
    exit "$known"
  fi
done
saved=$(newest_checkpoint)
case $wanted in
  requeue)
    [[ $saved != "$before" ]] && again 4 "time limit near, saved $saved"
    note "ended 4: nothing new was saved before the time limit"
    exit 4
    ;;
  end)
    note "ended 4"
    exit 4
    ;;
esac
if failed_with 4; then
  note "ended 4"
  exit 4
fi
[[ $saved != "$before" ]] && again "$status" "crashed with $status after saving $saved"
note "ended $status"
exit "$status"
