# Tools on simulated GPUs: the placement options act, the same text comes out, and errors say what to do.
# $1: binaries, $2: source tree.
set -u
tool=$1/ferry-cli
src=$2
. "$2/test/support/expect.sh"

demo=$src/configs/demo/kjv-moe-q8_0.gguf
if ! "$1/ferry-plan" -m "$demo" -c 64 --sim 1x64MiB >"$tmp/plan" 2>&1; then
    grep -q 'a build without them' "$tmp/plan" && { echo "no simulated GPUs in this build"; exit 0; }
    fail "$(cat "$tmp/plan")"
fi
grep -q '^ *Simulated GPU 0: weights ' "$tmp/plan" || fail "ferry-plan --sim does not use the GPU: $(cat "$tmp/plan")"

say=(-m "$demo" -p "In the beginning" -n 8 -c 64 --temp 0 --no-warmup -t 2)
"$tool" "${say[@]}" >"$tmp/cpu" 2>"$tmp/err" || fail "on the CPU: $(cat "$tmp/err")"

# same TEXT ARGS...: the CPU's words, and a line of the messages that matches TEXT
same() {
    local text=$1
    shift
    "$tool" "${say[@]}" "$@" >"$tmp/gpu" 2>"$tmp/err" || fail "$*: $(cat "$tmp/err")"
    cmp -s "$tmp/cpu" "$tmp/gpu" || fail "$*: found '$(cat "$tmp/gpu")', expected '$(cat "$tmp/cpu")'"
    grep -qE -- "$text" "$tmp/err" || fail "$*: found no '$text' in: $(cat "$tmp/err")"
}
same '^CUDA0 Simulated GPU 0: .* of 64.0 MiB: layers 0-3, experts of 1-3, output$' --sim 1x64MiB --fit off
same '^CUDA1 .*: layers 3, experts of 3, output$' --sim 2x64MiB -ts 1,1 --fit off
same '^CPU .*: embedding, experts of 1-3$' --sim 2x64MiB --cpu-moe
same '^CPU .*: embedding, experts of 1$' --sim 1x64MiB --n-cpu-moe 2 --fit off
same '^CUDA1 .*: part of the experts of 1-3$' --sim 2x64MiB -ot 'exps=CUDA1[0-3],exps=CPU' -dev CUDA0,CUDA1 -ts 1,0
same '^CPU .*: embedding, KV of 0-3$' --sim 1x64MiB -nkvo --fit off --cuda-sync-debug
same '^memory on CUDA0 +planned' --sim 1x64MiB --memory-report
same '^CUDA0 .*of 80.0 MiB' --sim 1x128MiB --vram-budget 80MiB --fit off
same '^cpu: 2 threads' --sim 1x64MiB --device none
same 'there is no GPU to use' --sim 1x64MiB --device none -ngl 99

# the machine of an INI file: its GPUs are the simulated ones
printf '[gpu.0]\nname = one\nvram = 64MiB\nreserve = 0\n[gpu.1]\nname = two\nvram = 64MiB\nreserve = 0\ndevice = 0\n[place]\not = exps=CUDA1\nfit = off\nts = 1,0\n' >"$tmp/two.ini"
same '^CUDA1 two: .* of 64.0 MiB: experts of 1-3$' --sim 1x128MiB --config "$tmp/two.ini"

expect 1 "GPU 0 \(one\): the plan puts .* machine has . devices.*--device none" "${say[@]}" --config "$tmp/two.ini"
expect 1 "found 'three'.*expected like '3x256MiB'" "${say[@]}" --sim three
expect 1 "the model does not fit" "${say[@]}" --sim 1x64MiB --fit off -c 1000000
expect 1 "vram-budget: found '1GiB,x'" "${say[@]}" --sim 2x64MiB --vram-budget 1GiB,x
expect 1 'rule 1 `exps=CUDA3`' "${say[@]}" --sim 2x64MiB -ot 'exps=CUDA3'
expect 0 'warning: -ot rule 1 `expz=CPU`: found no tensor' "${say[@]}" --sim 1x64MiB -ot 'expz=CPU'
expect 1 '-ot rule 1 `expz=CPU`: found no tensor' "${say[@]}" --sim 1x64MiB -ot 'expz=CPU' --strict-rules

# the other tools
ids=$src/test/data/logits/kjv.ids.txt
tool=$1/ferry-logits
expect 0 '' -m "$demo" --ids "$ids" -o "$tmp/logits" --sim 2x64MiB --cpu-moe -c 96
tool=$1/ferry-bench
expect 0 'pp8' -m "$demo" -p 8 -n 2 -r 1 --no-roofline --sim 1x64MiB -ngl 99
head -c 2000 "$src/README.md" >"$tmp/text"
tool=$1/ferry-perplexity
expect 0 'Final estimate' -m "$demo" -f "$tmp/text" -c 32 --chunks 1 --sim 1x64MiB
[ $failed -eq 0 ] && echo ok
exit $failed
