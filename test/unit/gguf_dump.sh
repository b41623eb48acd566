# ferry-gguf: what it prints, and its exit statuses. $1: binaries, $2: source tree.
set -u
tool=$1/ferry-gguf
src=$2
. "$2/test/support/expect.sh"

demo=$src/configs/demo/kjv-moe-q8_0.gguf
r1=$src/test/data/headers/deepseek-r1-q4_k_r4.header.gguf
sample=$src/test/data/gguf/ok-sample-v3.gguf

expect 0 '^version: +3$' dump "$demo"
expect 0 '^file: .*\(13204832 bytes, 12\.6 MiB\)$' dump "$demo"
expect 0 '^deepseek2\.expert_weights_scale +f32 +1\.5$' dump "$demo"
expect 0 '^tokenizer\.ggml\.merges +string\[\] +\["t h", .*\] \(3832 elements\)$' dump "$demo"
expect 0 '^tokenizer\.chat_template +string +".{100}"\.\.\. \(484 bytes\)$' dump "$demo"
expect 0 '^blk\.3\.ffn_up_exps\.weight +256 x 256 x 8 +q8_0 +557056 +11951456$' dump "$demo"
expect 0 '^total +66 +12266776 +13067360 +12\.5 MiB +100\.0 % +8\.522$' dump "$demo"
expect 0 'sold iers"\]$' dump --full "$demo"
expect 0 '^note: +header only: .*truncated after the header' dump "$r1"
expect 0 '^q4_k_r4 +605 +566804283392 +318827409408 +296\.931 GiB' dump "$r1"
expect 0 '^total +1025 +671026419200 +404424884224 +376\.650 GiB' dump "$r1"
expect 0 '^general\.name +string +"sample \\né"$' dump "$sample"
expect 0 '^a\.u64 +u64 +18446744073709551614$' dump "$sample"
expect 0 '^a\.f64 +f64 +-1e\+100$' dump "$sample"
expect 0 '^l\.nested +array\[\] +\[\["x", "yy"\], \[false, true, true\], \[\[8, 9\]\]\]$' dump "$sample"
expect 0 '^l\.empty +f32\[\] +\[\]$' dump "$sample"

expect 1 "'x', at byte 45: found tensor type id 4242" dump "$src/test/data/gguf/bad-unknown-type.gguf"
expect 1 'no-such-file' dump "$tmp/no-such-file"
expect 2 'no subcommand'
expect 2 "did you mean 'dump'" dumb "$demo"
expect 2 "did you mean '--full'" dump --ful "$demo"
expect 2 'no file' dump
expect 2 'expected one file' dump "$demo" "$demo"
expect 0 'ferry-gguf dump' --help
expect 0 '--full' dump --help
expect 0 '^ferry-gguf [0-9]' --version

"$tool" dump "$demo" >/dev/full 2>"$tmp/out" && { echo "a full disk passes in silence"; failed=1; }
[ $failed -eq 0 ] && echo ok
exit $failed
