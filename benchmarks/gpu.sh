#!/usr/bin/env bash
# Qwen2.5-Coder-0.5B on a CUDA GPU: rollouts next to its memory bandwidth and to transformers, RL updates next to its speed and to TRL.
#   benchmarks/gpu.sh [rollout|learner] [--model PATH] [--rounds 3] ...    with ReTool installed; PYTHON names another interpreter
#   benchmarks/gpu.sh rollout --device cpu                                 shows without a GPU that it runs
# Without a name both are measured. Each ends with a line of JSON.
set -euo pipefail
PYTHONPATH="$(cd "$(dirname "$0")" && pwd)${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
case "${1:-}" in
    rollout | learner) parts=("$1") && shift ;;
    *) parts=(rollout learner) ;;
esac
for part in "${parts[@]}"; do "${PYTHON:-python}" -m "$part.on_gpu" "$@"; done
