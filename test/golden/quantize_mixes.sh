#!/usr/bin/env bash
# The types that ferry-quantize chooses, against the headers of real models whose makers used the
# same mixes. $1: binaries, $2: source tree.
set -u
headers=$2/test/data/headers
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

fail() {
    echo "$*"
    failed=1
}

# plan HEADER TYPE [OPTIONS]: name, type there, type that is chosen, one line a tensor.
plan() {
    local header=$1 type=$2
    shift 2
    "$tool" --dry-run --allow-requantize "$@" "$headers/$header.header.gguf" "$type" > "$tmp/plan" || fail "$header: no plan"
    awk '/^total/ { exit } NR > 1 && NF { for (i = 2; $i ~ /^[0-9x]+$/; i++); print $1, $i, $(i + 1) }' "$tmp/plan"
}

# differing: the lines of standard input in which the types differ, forms aside when $1 = base.
differing() {
    awk -v base="${1:-}" '{ a = $2; b = $3 }
        base { a = tolower(a); b = tolower(b); sub(/_r[0-9]+$/, "", a); sub(/_r[0-9]+$/, "", b) }
        a != b'
}

tool=$1/ferry-quantize

# DeepSeek-R1, whole: all 1025 tensors have the type and the form of the file.
plan deepseek-r1-q4_k_r4 Q4_K_R4 > "$tmp/r1"
[ "$(wc -l < "$tmp/r1")" -eq 1025 ] || fail "Q4_K_R4: found $(wc -l < "$tmp/r1") tensors, expected 1025"
[ -z "$(differing < "$tmp/r1")" ] || fail "Q4_K_R4: found $(differing < "$tmp/r1" | head -3)"
grep -q '376\.650 GiB -> 376\.650 GiB (404424884224 bytes, 4\.822 bits' "$tmp/plan" || fail "Q4_K_R4: $(tail -1 "$tmp/plan")"

# The maker of this one left a few tensors plain.
plan deepseek-r1-iq4_k_r4 IQ4_K_R4 > "$tmp/r1"
[ "$(wc -l < "$tmp/r1")" -eq 1147 ] || fail "IQ4_K_R4: found $(wc -l < "$tmp/r1") tensors, expected 1147"
[ -z "$(differing base < "$tmp/r1")" ] || fail "IQ4_K_R4: found $(differing base < "$tmp/r1" | head -3)"
grep -q '353\.526 GiB -> 353\.526 GiB' "$tmp/plan" || fail "IQ4_K_R4: $(tail -1 "$tmp/plan")"
differing < "$tmp/r1" | grep -vE '^(output|blk\.[0-9]+\.(attn_k_b|attn_output))\.weight ' && fail "IQ4_K_R4: other forms"

# V2-Lite: q8_0 instead of q5_0 was chosen for experts whose rows suit no q4_K; 10.36 GB is the size
# of the usual file.
plan deepseek-v2-lite-q4_k_m Q4_K_M > "$tmp/v2"
differing < "$tmp/v2" | grep -vE '^blk\.[0-9]+\.ffn_down_exps\.weight q8_0 q5_0$' && fail "Q4_K_M: found other types"
[ "$(differing < "$tmp/v2" | wc -l)" -eq 14 ] || fail "Q4_K_M: found $(differing < "$tmp/v2" | wc -l) stand-ins, expected 14"
grep -q '(10360420352 bytes, 5\.277 bits' "$tmp/plan" || fail "Q4_K_M: $(tail -1 "$tmp/plan")"

# Recipes by regex: the two files that were made so.
plan kimi-k2-iq2_k_r4 IQ2_K_R4 --token-embedding-type q4_K --custom-q 'attn_[kv]_b=q8_0,ffn_down_exps=iq3_k_r4' \
    --custom-q 'ffn_(gate|up)_exps=iq2_k_r4, attn_.*=iq5_k_r4, blk\..*\.ffn_.*=iq5_k_r4' --custom-q 'output=q6_K' > "$tmp/k2"
[ -z "$(differing base < "$tmp/k2")" ] || fail "Kimi-K2: found $(differing base < "$tmp/k2" | head -3)"
plan deepseek-r1-0528-iq3_xxs IQ3_XXS --pure --output-tensor-type q6_K --token-embedding-type q4_K \
    --custom-q 'attn_=q5_K,blk\.[3-7]\.ffn_.*_exps=iq3_s,blk\.[0-2]\.ffn_=q6_K,_shexp=q6_K' > "$tmp/r1"
[ -z "$(differing < "$tmp/r1")" ] || fail "R1-0528: found $(differing < "$tmp/r1" | head -3)"

[ $failed -eq 0 ] && echo ok
exit $failed
