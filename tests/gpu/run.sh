#!/bin/sh
# Checks and times the kernels of this folder on the first GPU, and times what PyTorch has for the same work, in one run.
# Usage: ./run.sh RESULTS_FOLDER. Needs a driver for CUDA 13; PyTorch is used where python3 has it.
set -u
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: run.sh RESULTS_FOLDER}
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu \
    --format=csv > "$out/gpu.csv" 2>&1
cases=$(mktemp -d)
trap 'rm -rf "$cases"' EXIT
tar -xzf "$here/cases.tgz" -C "$cases" || exit 1
"$here/fireq-gpu" "$cases" -o "$out/kernels.json"
failed=$?
python3 "$here/bench.py" "$here/bench.json" "$out/torch.json"
date -u +%Y-%m-%d > "$out/date"
exit $failed
