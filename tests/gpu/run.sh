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
tar -xJf "$here/cases.txz" -C "$cases" ||
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/cases.txz" "$cases" || exit 1
"$here/fireq-gpu" "$cases" -o "$out/kernels.json"
failed=$?
# The demo model: every launch against the interpreter for prompts and single tokens, a text, and its speed.
many=$(awk 'BEGIN { for (i = 0; i < 200; i++) printf "%s%d", (i ? "," : ""), (i * 37 + i * i * 5) % 1024 }')
{
    for tokens in 1 "0,420,449,259,394,12,393,278,259,699,14" "$many"; do
        "$here/fireq" logits "$cases/demo.fireq" --device cuda --compare-ops --tokens "$tokens" || failed=1
    done
    "$here/fireq" run "$cases/demo.fireq" --device cuda --prompt "Once upon a time" -n 200 || failed=1
    "$here/fireq" bench "$cases/demo.fireq" --device cuda --prefill 512 --decode 128 || failed=1
} > "$out/demo.txt" 2>&1
python3 "$here/bench.py" "$here/bench.json" "$out/torch.json"
date -u +%Y-%m-%d > "$out/date"
# A model of real size with random weights, made there; where the time goes; and the same model in PyTorch.
shape="$cases/llama3-8b.fireq"
"$here/fireq" bench "$shape" --device cuda --random-weights 1 --repeat 2 --json > "$out/model.json" 2> "$out/model.txt" || failed=1
"$here/fireq" bench "$shape" --device cuda --random-weights 1 --repeat 1 --by-kernel \
    --prefill 1024 --batch 1,64 --after 1024 >> "$out/model.txt" 2>&1 || failed=1
python3 "$here/bench_model.py" "$here/llama3-8b.json" "$out/torch_model.json"
exit $failed
