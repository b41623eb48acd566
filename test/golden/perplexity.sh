#!/usr/bin/env bash
# ferry-perplexity on the demo model against the figure of the leading peer (85.733 for the q8_0
# file), files of log-probabilities, and what it says when something is wrong.
tool=$1/ferry-perplexity
demo=$2/configs/demo/kjv-moe-q8_0.gguf
other=$2/test/data/logits/v3.gguf
text=$2/test/data/text/kjv-heldout.txt
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
bad=0

# holds NAME EXPRESSION: an awk expression that must be true
holds() {
    awk "BEGIN { exit !($2) }" || { echo "$1: expected $2"; bad=1; }
}

# refuse WORDS ARGUMENTS...: exit status not 0, the words on standard error
refuse() {
    local words=$1
    shift
    "$tool" "$@" > "$tmp/out" 2> "$tmp/err" && { echo "$*: found success"; bad=1; }
    grep -qF -- "$words" "$tmp/err" || { echo "$*: found '$(cat "$tmp/err")', expected '$words'"; bad=1; }
}

# figure NAME FILE: the first number after "NAME ... :"
figure() {
    grep -F -- "$1" "$2" | head -1 | sed 's/^[^:]*: *//; s/[ %].*//'
}

"$tool" -m "$demo" -f "$text" > "$tmp/out" 2> "$tmp/err" || { cat "$tmp/err"; bad=1; }
[ "$(grep -o '\[[0-9]*\][0-9.]*,' "$tmp/out" | wc -l)" = 38 ] || { echo "expected 38 chunks"; bad=1; }
last=$(grep '^Final estimate: PPL over 38 chunks for n_ctx=512 = [0-9.]* +/- [0-9.]*$' "$tmp/out")
read -ra words <<< "$last"
ppl=${words[9]} error=${words[11]}
echo "perplexity $ppl +/- $error"
holds "perplexity of the demo" "${ppl:-0} > 85.733 - 0.05 && ${ppl:-0} < 85.733 + 0.05"
holds "its error" "${error:-0} > 2.36 && ${error:-0} < 2.37"

# 2 chunks: a base file, the model against itself, against itself with a rounded cache
"$tool" -m "$demo" -f "$text" --chunks 2 --kl-divergence-base "$tmp/base" > "$tmp/out" 2>&1 || bad=1
[ "$(stat -c %s "$tmp/base")" = $((20 + 2 * 512 * 4 + 2 * 255 * 4100 * 2)) ] || { echo "size of the base file"; bad=1; }
"$tool" -m "$demo" --kl-divergence --kl-divergence-base "$tmp/base" -f "$text" > "$tmp/same" 2> "$tmp/err" || { cat "$tmp/err"; bad=1; }
"$tool" -m "$demo" --kl-divergence --kl-divergence-base "$tmp/base" -ctk q4_0 --kv-window 0 > "$tmp/rounded" 2> "$tmp/err" || { cat "$tmp/err"; bad=1; }
kld=$(figure 'Mean    KLD' "$tmp/same")
rounded=$(figure 'Mean    KLD' "$tmp/rounded")
echo "divergence from itself $kld, with a q4_0 cache $rounded"
holds "divergence from itself" "${kld:-1} > -0.0001 && ${kld:-1} < 0.0001"
holds "same first choice" "$(figure 'Same top p:' "$tmp/same") == 100"
holds "perplexities" "($(figure 'Mean PPL(Q)  ' "$tmp/same") - $(figure 'Mean PPL(base)  ' "$tmp/same"))^2 < 1e-4"
holds "divergence of a rounded cache" "${rounded:-0} > 10 * ${kld:-1} && ${rounded:-0} > 0.0005"
for name in 'Maximum KLD' '99.9%  KLD' '99.0%  KLD' 'Median  KLD' 'RMS Δp'; do
    holds "$name" "$(figure "$name" "$tmp/rounded") > 0"
done

head -c 100000 "$tmp/base" > "$tmp/cut"
refuse "the file was cut" -m "$demo" --kl-divergence --kl-divergence-base "$tmp/cut"
refuse "found no log-probabilities" -m "$demo" --kl-divergence --kl-divergence-base "$demo"
refuse "found a vocabulary of 4096" -m "$other" --kl-divergence --kl-divergence-base "$tmp/base"
refuse "leave out -c" -m "$demo" -c 128 --kl-divergence --kl-divergence-base "$tmp/base"
tail -c 50000 "$text" > "$tmp/tail"
refuse "expected the same text" -m "$demo" -f "$tmp/tail" --kl-divergence --kl-divergence-base "$tmp/base"
refuse "expected --kl-divergence-base" -m "$demo" --kl-divergence
refuse "--file" -m "$demo"
refuse "--chunks: found 0" -m "$demo" -f "$text" --chunks 0
head -c 1000 "$text" > "$tmp/short"
refuse "expected at least 1024, two chunks of 512" -m "$demo" -f "$tmp/short"
refuse "$tmp/none/base" -m "$demo" -f "$text" --kl-divergence-base "$tmp/none/base"
[ -z "$(ls "$tmp" | grep tmp)" ] || { echo "found a temporary file"; bad=1; }
exit $bad
