#!/usr/bin/env bash
# ferry-imatrix: both forms of its file, joining, intermediate files, and what it says.
tool=$1/ferry-imatrix
demo=$2/configs/demo/kjv-moe-q8_0.gguf
text=$2/test/data/text/kjv-heldout.txt
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
bad=0

# run WORDS ARGUMENTS...: success, the words on standard output or error
run() {
    local words=$1
    shift
    "$tool" "$@" > "$tmp/out" 2>&1 || { echo "$*: failed: $(cat "$tmp/out")"; bad=1; }
    grep -qF -- "$words" "$tmp/out" || { echo "$*: found '$(cat "$tmp/out")', expected '$words'"; bad=1; }
}

# refuse WORDS ARGUMENTS...: exit status not 0, the words on standard error
refuse() {
    local words=$1
    shift
    "$tool" "$@" > "$tmp/out" 2> "$tmp/err" && { echo "$*: found success"; bad=1; }
    grep -qF -- "$words" "$tmp/err" || { echo "$*: found '$(cat "$tmp/err")', expected '$words'"; bad=1; }
}

# chunks 0..2 at once and in two parts; -mla is chosen so that nothing is missing
run "44 weights, 3 chunks of 256 tokens" -m "$demo" -f "$text" -c 256 --chunks 3 -o "$tmp/all.gguf" --no-ppl
grep -qF "have no entry" "$tmp/out" && { echo "found weights without an entry"; bad=1; }
run "44 weights, 3 chunks" -m "$demo" -f "$text" -c 256 --chunks 3 -o "$tmp/all.dat" --no-ppl
run "Final estimate: PPL over 2 chunks for n_ctx=256" -m "$demo" -f "$text" -c 256 --chunks 2 -ofreq 1 -o "$tmp/a.gguf"
[ "$(grep -c "a.gguf: 44 weights" "$tmp/out")" = 2 ] || { echo "expected an intermediate file"; bad=1; }
run "44 weights, 3 chunks" -m "$demo" -f "$text" -c 256 --chunk 2 --chunks 1 --in-file "$tmp/a.gguf" -o "$tmp/b.gguf" --no-ppl
run "45 weights" -m "$demo" -f "$text" -c 256 --chunks 1 --process-output -o "$tmp/c.gguf" --no-ppl
# the older form made from the newer one: sums were rounded in between, the names are the same bytes
run "44 weights, 3 chunks" -c 256 --in-file "$tmp/all.gguf" -o "$tmp/converted.dat"
[ "$(grep -aoE "blk\.[a-z0-9._]+" "$tmp/converted.dat")" = "$(grep -aoE "blk\.[a-z0-9._]+" "$tmp/all.dat")" ] || { echo "names in .dat"; bad=1; }
[ "$(stat -c %s "$tmp/converted.dat")" = "$(stat -c %s "$tmp/all.dat")" ] || { echo "sizes of .dat"; bad=1; }
[ "$(stat -c %s "$tmp/b.gguf")" = "$(stat -c %s "$tmp/all.gguf")" ] || { echo "sizes of GGUF"; bad=1; }
run "44 weights, 6 chunks" -c 256 --in-file "$tmp/all.gguf" --in-file "$tmp/all.dat" -o "$tmp/d.gguf"
# a model without attn_kv_b entries is told about
run "4 weights of layers have no entry: blk.0.attn_kv_b.weight" -m "$demo" -f "$text" -c 64 --chunks 1 -mla 1 -o "$tmp/e.gguf" --no-ppl
# few tokens do not reach all experts
run "experts that no token used" -m "$demo" -f "$text" -c 4 --chunks 1 -o "$tmp/f.gguf" --no-ppl

refuse "--file" -m "$demo"
refuse "--model" -f "$text"
refuse "--from-chunk: found 400" -m "$demo" -f "$text" --chunk 400 -o "$tmp/x.gguf"
refuse "expected 'imatrix'" --in-file "$demo" -o "$tmp/x.gguf"
refuse "expected an importance matrix" --in-file "$text" -o "$tmp/x.gguf"
refuse "$tmp/none" --in-file "$tmp/none" -o "$tmp/x.gguf"
refuse "belong to different models" -m "$2/test/data/logits/v3.gguf" -f "$text" -c 32 --chunks 1 --in-file "$tmp/all.gguf" -o "$tmp/x.gguf"
[ ! -e "$tmp/x.gguf" ] || { echo "found x.gguf after failures"; bad=1; }

# ferry-quantize reads both forms; the result is a little off the model, the same for both
"$1/ferry-perplexity" -m "$demo" -f "$text" -c 256 --chunks 2 --kl-divergence-base "$tmp/base" > /dev/null 2>&1 || bad=1
for form in gguf dat; do
    "$1/ferry-quantize" --allow-requantize --pure --imatrix "$tmp/all.$form" "$demo" "$tmp/q.gguf" Q2_K 2 > "$tmp/out" 2>&1 || { cat "$tmp/out"; bad=1; }
    "$1/ferry-gguf" dump "$tmp/q.gguf" | grep -qE '^quantize\.imatrix\.entries_count +i32 +44$' || { echo "expected 44 entries in a file quantized with all.$form"; bad=1; }
    "$1/ferry-perplexity" -m "$tmp/q.gguf" --kl-divergence --kl-divergence-base "$tmp/base" 2> "$tmp/err" | grep 'Mean    KLD' > "$tmp/kld.$form"
done
cat "$tmp/kld.gguf"
awk '{ v[NR] = $3 } END { exit !(v[1] > 0.001 && v[1] < 0.5 && v[1] - v[2] < 0.01 * v[1] && v[2] - v[1] < 0.01 * v[1]) }' "$tmp/kld.gguf" "$tmp/kld.dat" ||
    { echo "divergence of a Q2_K model: found $(cat "$tmp"/kld.*)"; bad=1; }
exit $bad
