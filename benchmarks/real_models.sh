#!/usr/bin/env bash
# Untrained models on GSM8K, with the interpreter on and off.
#   MODELS=folder with smollm2-135m/ and qwen2.5-coder-0.5b/   TEST=gsm8k_test.jsonl   OUT=runs/real benchmarks/real_models.sh
# Repeating it goes on where it stopped. The last lines are the figures, one JSON object each.
set -euo pipefail
: "${MODELS:?folder of the models}" "${TEST:?test problems}"
OUT=${OUT:-runs/real}
RETOOL=${RETOOL:-retool}

evaluate() { # name preset model protocol interpreter
    local name=$1 preset=$2 model=$3 protocol=$4 interpreter=$5
    [ -e "$OUT/eval-$name/results.json" ] || "$RETOOL" eval "$preset" rollout.max_tokens=256 rollout.rows=50 \
        --model "$model" --data "$TEST" --mapping gsm8k --limit 50 --protocol "$protocol" \
        --interpreter "$interpreter" --samples 1 --seed 0 --out "$OUT/eval-$name"
}

for interpreter in on off; do
    evaluate "smollm2-$interpreter" smollm2-135m "$MODELS/smollm2-135m" tags "$interpreter"
    evaluate "qwen-$interpreter" qwen2.5-0.5b "$MODELS/qwen2.5-coder-0.5b" fenced "$interpreter"
done

for results in "$OUT"/eval-*/results.json; do
    python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(json.dumps({"eval": sys.argv[1].split("/")[-2], **{k: r[k] for k in ("accuracy", "ci95", "truncated", "code_ratio", "code_pass_rate")}}))' "$results"
done
