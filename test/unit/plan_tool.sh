# ferry-plan: every form of output, and its exit statuses. $1: binaries, $2: source tree.
set -u
tool=$1/ferry-plan
src=$2
. "$2/test/support/expect.sh"

demo=$src/configs/demo/kjv-moe-q8_0.gguf
lite=$src/test/data/headers/deepseek-v2-lite-q4_k_m.header.gguf
machine=$src/configs/1x3090-epyc.ini

expect 0 '^KJV MoE 12M \(deepseek2\)$' -m "$demo" -c 256
expect 0 '^CPU +\[=*K*W*L?\.*\] ' -m "$demo" -c 256
expect 0 '^layers +GiB +dense parts +KV +routed experts$' --config "$machine" -m "$lite" -c 4096
expect 0 '^ 78 tensors +[0-9.]+ GiB +--cpu-moe$' --config "$machine" -m "$lite" -c 4096 -cmoe
expect 0 'CUDA0, experts 0-63, .*: --fit' --config "$machine" -m "$lite" -c 4096 --explain 'blk.3.ffn_up_exps'
expect 0 '^-ngl 999 -ot ' --config "$machine" -m "$lite" -c 4096 --emit-ot
expect 0 'split-mode row: this version plans whole layers' --config "$machine" -m "$lite" -sm row
expect 0 "^DeepSeek-V4-Pro +f16 .* 9\.625 GiB$" --kv-table
expect 0 '^q8_0 +37332 .* 5\.696 GiB' --kv-table -m "$src/test/data/headers/deepseek-r1-q4_k_r4.header.gguf"
expect 0 '^\[ram\]$' --probe
if "$tool" --probe --sim 1x96MiB >"$tmp/sim.ini" 2>"$tmp/err"; then # a build with the simulator
    expect 0 '^\[gpu\.2\]$' --probe --sim 3x96MiB
    expect 0 '^CUDA0 ' --config "$tmp/sim.ini" -m "$demo" -c 256
else
    expect 1 'a build without them' --probe --sim 1x96MiB
fi
expect 0 '^usage: ferry-plan ' --help

# a plan kept as an INI file is the same plan, and the comparison of others says no
"$tool" --config "$machine" -m "$lite" -c 4096 --json >"$tmp/a.json" 2>"$tmp/err" || failed=1
"$tool" --config "$machine" -m "$lite" -c 4096 --emit-ini >"$tmp/plan.ini" 2>"$tmp/err" || failed=1
"$tool" --config "$tmp/plan.ini" -m "$lite" --json >"$tmp/b.json" 2>"$tmp/err" || failed=1
"$tool" --config "$machine" -m "$lite" -c 8192 --json >"$tmp/c.json" 2>"$tmp/err" || failed=1
expect 0 '^the plans are the same$' --diff "$tmp/a.json" "$tmp/b.json"
expect 3 '^n_ctx: 4096 -> 8192$' --diff "$tmp/a.json" "$tmp/c.json"
python3 -m json.tool "$tmp/a.json" >/dev/null || failed=1
"$tool" -m "$demo" --svg "$tmp/p.svg" >/dev/null 2>&1 && grep -q '^</svg>$' "$tmp/p.svg" || failed=1

expect 1 'cannot be opened' -m "$tmp/none.gguf"
expect 1 'expected a plan' --diff "$demo" "$tmp/a.json"
expect 2 'a model is given with -m FILE' "$demo"
expect 2 'expected two: OLD.json NEW.json' --diff "$tmp/a.json"
expect 2 'not given' -c 256
expect 2 'expected names like CUDA0' -m "$demo" -dev GPU1
expect 2 'expected shares like 3,2,2' -m "$demo" -ts 1,x
expect 2 'expected pairs of GPU and MiB' -m "$demo" --gpu-fit-margin 0
expect 2 'error: -ot rule 1' -m "$demo" -ot 'exps=CUDA7'
printf '[gpu.0]\nvram = 0\n' >"$tmp/zero.ini"
expect 2 'zero.ini:2: \[gpu.0\] vram: found "0", expected a size' --config "$tmp/zero.ini" -m "$demo"
printf '[gpu.0]\nvrm = 24GiB\n' >"$tmp/typo.ini"
expect 2 'did you mean vram\?' --config "$tmp/typo.ini" -m "$demo"
: >"$tmp/empty.ini"
expect 0 '^CPU ' --config "$tmp/empty.ini" -m "$demo" -c 0
expect 3 'what would help' --config "$machine" -m "$src/test/data/headers/kimi-k2-iq2_k_r4.header.gguf"

"$tool" -m "$demo" >/dev/full 2>"$tmp/out" && { echo "a full disk passes in silence"; failed=1; }
[ $failed -eq 0 ] && echo ok
exit $failed
