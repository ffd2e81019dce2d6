#!/usr/bin/env bash
# Rollouts of Qwen2.5-Coder-0.5B on a CUDA GPU, next to its memory bandwidth and to transformers; the last line is JSON.
#   benchmarks/gpu.sh [--model PATH] [--rounds 3]       with ReTool installed; PYTHON names another interpreter
#   benchmarks/gpu.sh --device cpu                      shows without a GPU that it runs
set -euo pipefail
PYTHONPATH="$(cd "$(dirname "$0")" && pwd)${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m rollout.on_gpu "$@"
