#!/usr/bin/env bash
# The table of docs: perplexity of a model on a text, quantized to many types, plain and interleaved.
#   test/bench/kjv_perplexity.sh BIN MODEL-f16.gguf TEXT [TYPE...]  > table.md
# Embedding and output are q8_0, everything else the named type, no importance matrix; context 512. Files stay as
# they are in memory, or both would be computed in the layout that kernels like best.
set -euo pipefail
bin=$1 model=$2 text=$3
shift 3
types=("$@")
[ $# -gt 0 ] || types=(f16 q8_0 q6_K q5_K q4_K iq4_k iq4_xs q3_K iq3_s iq2_k iq2_xxs)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

perplexity() { # MODEL
    "$bin/ferry-perplexity" -m "$1" -f "$text" -c 512 --no-repack --log-disable 2>/dev/null |
        sed -n 's/^Final estimate: PPL over .* = \([0-9.]*\) .*/\1/p'
}

quantize() { # OUT TYPE OPTION...
    local out=$1 type=$2
    shift 2
    "$bin/ferry-quantize" --pure --output-tensor-type q8_0 --token-embedding-type q8_0 "$@" \
        "$model" "$out" "$type" >/dev/null 2>&1
}

echo "| type | plain | interleaved | difference |"
echo "| --- | --- | --- | --- |"
for type in "${types[@]}"; do
    quantize "$folder/plain.gguf" "$type"
    quantize "$folder/interleaved.gguf" "$type" --repack
    plain=$(perplexity "$folder/plain.gguf")
    interleaved=$(perplexity "$folder/interleaved.gguf")
    awk -v t="$type" -v p="$plain" -v i="$interleaved" \
        'BEGIN { printf "| %s | %.4f | %.4f | %.1e |\n", t, p, i, (i > p ? i - p : p - i) / p }'
done
