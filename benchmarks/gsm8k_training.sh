#!/usr/bin/env bash
# The whole way on GSM8K, ReTool beside text-only with the same budget: cold start by rules → SFT → RL → evaluation → analysis → report.
#   MODEL=folder   TRAIN=gsm8k_train.jsonl   TEST=gsm8k_test.jsonl   [OUT=runs/gsm8k]   benchmarks/gsm8k_training.sh [ARM ...]
# ARM is `tools` or `text` (default: both, one after the other); two arms in two shells share the machine. Repeating the command goes on
# where it stopped. The values below are for SmolLM2-135M-Instruct on a CPU; PRESET=qwen2.5-0.5b and the variables change that.
set -euo pipefail
: "${MODEL:?folder of the model}" "${TRAIN:?training problems with solutions}" "${TEST:?test problems}"
OUT=${OUT:-runs/gsm8k} PRESET=${PRESET:-smollm2-135m} RETOOL=${RETOOL:-retool} THREADS=${THREADS:-0} SEED=${SEED:-0}
TRACES=${TRACES:-1000} EPOCHS=${EPOCHS:-1} STEPS=${STEPS:-20} PROMPTS=${PROMPTS:-4} GROUP=${GROUP:-8} RATE=${RATE:-1.0e-5}
PROBLEMS=${PROBLEMS:-200} SAMPLES=${SAMPLES:-4} TOKENS=${TOKENS:-320}

TOOLS_PROMPT='Solve the problem step by step. Calculate in Python between <code> and </code>; what it prints comes back between <interpreter> and </interpreter>. Put the final answer into \boxed{}.'
TEXT_PROMPT='Solve the problem step by step. Put the final answer into \boxed{}.'

synth() { # traces with code and the same problems as text
    [ -e "$OUT/synth/README.md" ] || "$RETOOL" synth "$PRESET" --source "$TRAIN" --mapping gsm8k --limit $((TRACES + TRACES / 10)) --seed "$SEED" --out "$OUT/synth"
    for kind in traces text_traces; do head -n "$TRACES" "$OUT/synth/$kind.jsonl" >"$OUT/$kind.jsonl"; done
}

arm() { # name protocol prompt traces
    local run="$OUT/$1" common=("$PRESET" "protocol.name=$2" "protocol.instruction='$3'" "rollout.max_tokens=$TOKENS" "threads=$THREADS")
    "$RETOOL" sft "${common[@]}" sft.steps=null "sft.epochs=$EPOCHS" sft.save_every=10 --model "$MODEL" --traces "$OUT/$4.jsonl" --seed "$SEED" --out "$run/sft"
    local cold; cold=$(last "$run/sft")
    "$RETOOL" rl "${common[@]}" rl.algorithm=grpo "rl.steps=$STEPS" "rl.prompts=$PROMPTS" "rl.samples=$GROUP" "rl.learning_rate=$RATE" rl.mini_batches=1 rl.save_every=2 rl.keep_checkpoints=3 rl.eval_every=5 \
        --model "$cold" --data "$TRAIN" --heldout "$TEST" --mapping gsm8k --seed "$SEED" --out "$run/rl"
    evaluate "$run/eval-cold" "$cold" "${common[@]}"
    evaluate "$run/eval-rl" "$(last "$run/rl")" "${common[@]}"
}

last() { printf '%s\n' "$1"/checkpoints/step-* | sort -V | tail -n 1; }

evaluate() { # folder model settings…
    local out=$1 model=$2
    shift 2
    [ -e "$out/results.json" ] || "$RETOOL" eval "$@" --model "$model" --data "$TEST" --mapping gsm8k --limit "$PROBLEMS" --samples "$SAMPLES" --seed "$SEED" --out "$out"
}

tell() { # what came of it, once both arms are there
    local found=("$OUT"/{text,tools}/eval-{cold,rl}) each
    for each in "${found[@]}"; do [ -e "$each/results.json" ] || return 0; done
    "$RETOOL" compare "$OUT/text/eval-rl" "$OUT/tools/eval-rl" --out "$OUT/compared.json"
    for each in text tools; do "$RETOOL" compare "$OUT/$each/eval-cold" "$OUT/$each/eval-rl" --out "$OUT/$each/compared.json"; done
    "$RETOOL" analyze "$OUT"/{text,tools}/{rl,eval-rl} --out "$OUT/analysis"
    "$RETOOL" report "$OUT"/{tools,text}/{rl,eval-cold,eval-rl} --title "GSM8K: ReTool beside text-only" --out "$OUT/report.html"
}

mkdir -p "$OUT"
synth
[ $# -gt 0 ] || set -- tools text
for name in "$@"; do
    case $name in
        tools) arm tools tags "$TOOLS_PROMPT" traces ;;
        text) arm text text "$TEXT_PROMPT" text_traces ;;
        *) echo "there is no arm $name, only tools and text" >&2; exit 2 ;;
    esac
done
tell
