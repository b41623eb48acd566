#!/usr/bin/env bash
# ferry-tokenize: batches, single texts, pieces, and what it says when something is wrong.
tool=$1/ferry-tokenize
data=$2/test/data/tokenize
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
bad=0

# expect NAME FOUND WANTED
expect() {
    [ "$2" = "$3" ] || { echo "$1: found '$2', expected '$3'"; bad=1; }
}

# refuse WORDS ARGUMENTS...: exit code 1, nothing on standard output, the words on standard error
refuse() {
    local words=$1 out code
    shift
    out=$("$tool" "$@" 2> "$tmp/err")
    code=$?
    expect "$* (code)" "$code" 1
    expect "$* (output)" "$out" ""
    grep -qF -- "$words" "$tmp/err" || { echo "$*: found '$(cat "$tmp/err")', expected '$words'"; bad=1; }
}

gpt2=$data/ggml-vocab-gpt-2.gguf
"$tool" -m "$gpt2" --batch0 "$data/inputs.bin" > "$tmp/ids" || bad=1
cmp "$tmp/ids" "$data/gpt-2.ids" || bad=1

expect "-p" "$("$tool" -m "$gpt2" -p 'Hello world')" "15496 995"
printf 'Hello\0world' > "$tmp/text"
expect "-f with a NUL" "$("$tool" -m "$gpt2" -f "$tmp/text")" "15496 188 6894"
expect "--batch0 without a last NUL" "$("$tool" -m "$gpt2" --batch0 "$tmp/text" | tr '\n' ,)" "15496,6894,"
expect "standard input" "$(printf Hello | "$tool" -m "$gpt2" -f -)" "15496"
expect "nothing" "$(: | "$tool" -m "$gpt2" -f - | wc -l)" "1"
expect "--bos" "$("$tool" -m "$data/ggml-vocab-llama-spm.gguf" --bos -p Hello)" "1 15043"
expect "--parse-special" "$("$tool" -m "$gpt2" --parse-special -p 'a<|endoftext|>')" "64 50256"
expect "--pieces" "$("$tool" -m "$gpt2" --pieces -p $'Hi "\n' | tr '\n' ,)" \
    ' 17250  "Hi",   366  " \"",   198  "\x0A",'
"$tool" --help | grep -q -- --batch0 || { echo "--help: found no --batch0"; bad=1; }

refuse "--model: found nothing" -p x
refuse "expected one of --prompt, --file, --batch0" -m "$gpt2"
refuse "expected one of --prompt, --file, --batch0" -m "$gpt2" -p x -f y
refuse "-p: found nothing after it" -m "$gpt2" -p
refuse "--nonsense" -m "$gpt2" --nonsense
refuse "$tmp/none.gguf" -m "$tmp/none.gguf" -p x
refuse "$tmp/none" -m "$gpt2" -f "$tmp/none"
refuse "word2vec" -m "$data/corpus/bad-pre.gguf" -p x
exit $bad
