#!/usr/bin/env bash
# ferry-gguf synth: shapes, types, stand-ins, seeds; the models run. $1: binaries, $2: source tree.
set -u
tool=$1/ferry-gguf
demo=$2/configs/demo/kjv-moe-q8_0.gguf
. "$2/test/support/expect.sh"

# shows FILE TEXT...: lines of its dump.
shows() {
    local file=$1 text
    shift
    "$tool" dump "$file" > "$tmp/dump" || fail "dump $file"
    for text in "$@"; do
        grep -qE -- "$text" "$tmp/dump" || fail "$(basename "$file"): found no line with '$text'"
    done
}

# The logits of a few tokens: finite, not all alike, and about as large as they should be.
runs() {
    echo "0 50 60 70 80 3" > "$tmp/ids"
    "$1" -m "$2" --ids "$tmp/ids" -o "$tmp/logits" > "$tmp/out" 2>&1 || fail "$2: $(head -3 "$tmp/out")"
    od -An -v -tf4 -w4 "$tmp/logits" | awk '
        { n++; if ($1 !~ /^[-+0-9.e]+$/) bad++; sum += $1 * $1; if (!($1 in seen)) { seen[$1]; distinct++ } }
        END { rms = sqrt(sum / n); exit !(n > 0 && !bad && rms > 0.3 && rms < 3 && distinct > 0.7 * n) }' ||
        fail "$(basename "$2"): found degenerate logits"
}

expect 0 'a.gguf: tiny, 3 layers, 7\.' synth --shape tiny --type q8_0 -o "$tmp/a.gguf" --vocab-from "$demo"
shows "$tmp/a.gguf" '^general\.file_type +u32 +7$' '^total +49 ' '^deepseek2\.leading_dense_block_count +u32 +1$' \
    '^blk\.2\.ffn_down_exps\.weight +256 x 256 x 8 +q8_0 ' '^blk\.2\.ffn_gate_inp\.weight +256 x 8 +f32 ' \
    '^token_embd\.weight +256 x 4096 +q8_0 ' '^blk\.1\.ffn_norm\.weight +256 +f32 ' \
    '^tokenizer\.ggml\.merges .*\(3832 elements\)$' '^tokenizer\.chat_template '
runs "$1/ferry-logits" "$tmp/a.gguf"

# Interleaved, fewer layers, k_b whose rows of 64 weights take a type with blocks of 32; one token a
# byte, and more that are not used.
expect 0 '' synth --shape tiny-split-kv-2-layers --type iq4_k_r4 --embd-type f16 -o "$tmp/b.gguf"
shows "$tmp/b.gguf" '^general\.file_type +u32 +340$' '^deepseek2\.attention\.key_length_mla +u32 +96$' \
    '^token_embd\.weight +256 x 512 +f16 ' '^output\.weight +256 x 512 +iq4_k_r4 ' \
    '^blk\.1\.attn_k_b\.weight +64 x 256 x 4 +q5_0_r4 ' '^blk\.1\.attn_v_b\.weight +256 x 64 x 4 +iq4_k_r4 ' \
    '^blk\.1\.ffn_gate_exps\.weight +256 x 256 x 8 +iq4_k_r4 ' '^tokenizer\.ggml\.tokens .*\(512 elements\)$'
runs "$1/ferry-logits" "$tmp/b.gguf"
"$1/ferry-tokenize" -m "$tmp/b.gguf" -p 'a~ é' > "$tmp/out" 2>&1
grep -qE '99.*128.*34.*197.*171' "$tmp/out" || fail "tokenize: found $(head -3 "$tmp/out")"

# The seed decides every byte.
expect 0 '' synth --shape tiny-split-kv-1-layer --type f32 --seed 7 -o "$tmp/s7.gguf"
expect 0 '' synth --shape tiny-split-kv-1-layer --type f32 --seed 7 -o "$tmp/s7b.gguf"
expect 0 '' synth --shape tiny-split-kv-1-layer --type f32 --seed 8 -o "$tmp/s8.gguf"
cmp -s "$tmp/s7.gguf" "$tmp/s7b.gguf" || fail "seed 7 twice: found two models"
cmp -s "$tmp/s7.gguf" "$tmp/s8.gguf" && fail "seeds 7 and 8: found the same model"

expect 2 'found no --type' synth --shape tiny -o "$tmp/new"
expect 2 "'tinny', expected v2-lite, v3," synth --shape tinny --type q8_0 -o "$tmp/new"
expect 2 "'v3-0-layers', expected" synth --shape v3-0-layers --type q8_0 -o "$tmp/new"
expect 2 "'v3-9999-layers', expected" synth --shape v3-9999-layers --type q8_0 -o "$tmp/new"
expect 2 "'q9' is not a type" synth --shape tiny --type q9 -o "$tmp/new"
expect 2 '--type: iq1_s_il4 does not exist in files' synth --shape tiny --type iq1_s_il4 -o "$tmp/new"
expect 2 'found no encoder for iq1_s_r4' synth --shape tiny --type iq1_s_r4 -o "$tmp/new"
expect 2 "--seed: found '-1'" synth --shape tiny --type q8_0 --seed -1 -o "$tmp/new"
expect 2 "did you mean '--vocab-from'" synth --shape tiny --vocab-form x
expect 2 'found nothing after -o' synth --shape tiny --type q8_0 -o
expect 1 'found a vocabulary of 4096 tokens, expected at most the 512' synth \
    --shape tiny-split-kv --type q8_0 --vocab-from "$demo" -o "$tmp/new"
expect 1 'no-such-file' synth --shape tiny --type q8_0 --vocab-from "$tmp/no-such-file" -o "$tmp/new"
expect 1 'cannot be created' synth --shape tiny --type q8_0 -o "$tmp/no-folder/new"
expect 0 'ferry-gguf synth --shape' synth --help
left=$(find "$tmp" -name 'new*')
[ -z "$left" ] || fail "found $left, expected nothing"
[ $failed -eq 0 ] && echo ok
exit $failed
