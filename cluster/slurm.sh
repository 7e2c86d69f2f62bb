#!/usr/bin/env bash
# Makes a Ray cluster out of one Slurm job, with a token of its own, runs a sweep on it, and ends all that it started.
# Forgotten, it costs its nodes until the sweep ends: at the time limit it stops cleanly, and requeues itself to go on.
# Start:  sbatch slurm.sh --space glue    (whatever follows the file's name goes to `stkd sweep`)
# Use, end:  tail -f stkd-JOB.log;  scancel --batch --signal=TERM JOB    (cleanly: `stkd sweep --resume` can go on)

#SBATCH --nodes=5                # CHANGE: nodes,
#SBATCH --gpus-per-node=8        # CHANGE: and of each the GPUs,
#SBATCH --cpus-per-task=64       # CHANGE: the cores,
#SBATCH --mem=0                  # CHANGE: and the memory; 0 is all of it
#SBATCH --time=12:00:00          # CHANGE: how long at a time
#SBATCH --ntasks-per-node=1
#SBATCH --job-name=stkd
#SBATCH --output=stkd-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --no-kill

set -euo pipefail

source /shared/stkd/bin/activate                           # CHANGE: an environment that all nodes see
export MLFLOW_TRACKING_URI=http://mlflow.example.com:5000  # CHANGE: your server, as from mlflow_compose.yaml
storage=/shared/stkd-runs                                  # CHANGE: a folder that all nodes see

export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # when Ray is told to go, nothing runs on it any more
log=stkd-$SLURM_JOB_ID.log # as --output says
ray_log=stkd-$SLURM_JOB_ID-ray-${SLURM_RESTART_COUNT:-0}.log
ray_folder=/tmp/stkd-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
# Ray chooses free ports by itself, on nodes that others use as well; but for this one it would take 10001
mapfile -t client_port < <(python -c '
import importlib.util, socket
if importlib.util.find_spec("grpc"):
    with socket.socket() as probe:
        probe.bind(("", 0))
        print(f"--ray-client-server-port={probe.getsockname()[1]}")
')
# also where Slurm ends everything at once, a node's folder goes with its Ray; each of its signals ends a `wait`, not Ray
tidily='trap : TERM; "${@:2}" & while kill -0 $! 2> /dev/null; do wait $!; done; rm -rf -- "$1"'
ray_options=(
  --block "--temp-dir=$ray_folder" --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0
  "--num-cpus=$SLURM_CPUS_PER_TASK" "--num-gpus=${SLURM_GPUS_ON_NODE:-0}" --object-store-memory=4000000000
  --disable-usage-stats
)
steps=()
sweep=
reason=
signals=0

on_nodes() { # in a shell of its own: how many, then options of srun and a command that runs once on each
  exec srun --nodes="$1" --ntasks="$1" --cpus-per-task="$SLURM_CPUS_PER_TASK" --overlap --no-kill --kill-on-bad-exit=0 \
    --input=none "${@:2}"
}

stop() {
  reason=$1
  signals=$((signals + 1))
  if [[ -z $sweep ]]; then exit 143; fi
  kill -TERM "$sweep" 2> /dev/null || true
}

clean() {
  trap '' TERM USR1
  if ((${#steps[@]})); then
    kill -TERM "${steps[@]}" 2> /dev/null || true
    wait "${steps[@]}" || true
    if [[ -e $ray_folder ]]; then (on_nodes "$SLURM_JOB_NUM_NODES" rm -rf -- "$ray_folder") || true; fi
  fi
  steps=()
}

started() { grep --count "Ray runtime started" "$ray_log" || true; }

wait_for() { # nodes, seconds
  for ((second = 0; second < $2 && $(started) < $1; second++)); do
    kill -0 "${steps[@]}" 2> /dev/null || break
    sleep 1
  done
}

touch "$ray_log"
trap clean EXIT
trap 'stop "the time limit"' USR1
trap 'stop "SIGTERM"' TERM

on_nodes 1 --nodelist="$SLURMD_NODENAME" bash -c "$tidily" - "$ray_folder" \
  ray start --head --port=0 --include-dashboard=false "${client_port[@]}" "${ray_options[@]}" >> "$ray_log" 2>&1 &
steps+=($!)
wait_for 1 120
if [[ ! -s $ray_folder/ray_current_cluster ]]; then
  echo "Ray does not start on $SLURMD_NODENAME: see the end of $ray_log" >&2
  exit 1
fi
address=$(< "$ray_folder/ray_current_cluster")
if ((SLURM_JOB_NUM_NODES > 1)); then
  on_nodes $((SLURM_JOB_NUM_NODES - 1)) --exclude="$SLURMD_NODENAME" bash -c "$tidily" - "$ray_folder" \
    ray start "--address=$address" "${ray_options[@]}" >> "$ray_log" 2>&1 &
  steps+=($!)
  wait_for "$SLURM_JOB_NUM_NODES" 300
fi
echo "Ray runs on $(started) of $SLURM_JOB_NUM_NODES nodes, at $address; its words are in $ray_log"

begun=$(sed --quiet 's/^sweep \([^ ,]*\), in .*/\1/p' "$log" | tail --lines=1) || true
if [[ ${SLURM_RESTART_COUNT:-0} -gt 0 && -n $begun ]]; then
  set -- --resume "$begun"
fi
stkd sweep --address "$address" --storage "$storage" "$@" &
sweep=$!
heard=-1
while ((heard != signals)); do # a signal ends `wait`, but not the sweep
  heard=$signals
  code=0
  wait "$sweep" || code=$?
done
clean
if [[ $reason == "the time limit" && $code != 0 ]]; then
  echo "the sweep goes on when Slurm starts job $SLURM_JOB_ID again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
