#!/usr/bin/env bash
# ferry-gguf on raw files: encode against decode, sizes, errors, nothing left behind. $1: binaries,
# $2: source tree.
set -u
tool=$1/ferry-gguf
data=$2/test/data/quants
. "$2/test/support/expect.sh"

same() {
    cmp -s "$1" "$2" || fail "$3: found other bytes"
}

source=$data/quantized/q8_0.f32
importance=$tmp/importance.f32
for _ in {1..512}; do
    printf '\0\0\200\077' # 1.0
done > "$importance"

# Encoding gives back what was decoded, for types where the largest weight says the scale.
expect 0 '' encode q8_0 16 512 "$source" "$tmp/q8_0"
same "$tmp/q8_0" "$data/quantized/q8_0.q" "encode q8_0"
expect 0 '' encode F16 16 512 "$data/quantized/f16.f32" "$tmp/f16"
same "$tmp/f16" "$data/quantized/f16.q" "encode f16"

# An interleaved type: the plain one, repacked; also with an importance matrix.
expect 0 '' encode q8_0_r8 16 512 "$source" "$tmp/il"
expect 0 '' repack q8_0_r8 16 512 "$tmp/il" "$tmp/plain"
same "$tmp/plain" "$tmp/q8_0" "encode q8_0_r8"
expect 0 '' encode q8_0 16 512 "$source" "$tmp/weighed" --imatrix "$importance"
expect 0 '' encode q8_0_r8 16 512 "$source" "$tmp/il" --imatrix "$importance"
expect 0 '' repack --to interleaved q8_0 16 512 "$tmp/weighed" "$tmp/il2"
same "$tmp/il2" "$tmp/il" "repack q8_0"

# A matrix of many chunks: floats survive f32 untouched, also as one long row.
head -c 20000000 /dev/zero | tr '\0' '\101' > "$tmp/big"
expect 0 '' decode f32 5000 1000 "$tmp/big" "$tmp/out"
same "$tmp/big" "$tmp/out" "decode f32 of 20 MB"
expect 0 '' encode f32 1 5000000 "$tmp/big" "$tmp/out"
same "$tmp/big" "$tmp/out" "encode f32 in one row"

# Wrong sizes and shapes.
rm -f "$tmp/new"
expect 1 'q8_0: found 8704 bytes, expected 9248: 17 rows of 512 weights are 544 bytes each' \
    decode q8_0 17 512 "$tmp/q8_0" "$tmp/new"
expect 1 'expected a multiple of 32' decode q8_0 16 500 "$tmp/q8_0" "$tmp/new"
expect 1 'type q8_0_r8: found 4 rows, expected a multiple of 8' decode q8_0_r8 4 512 "$tmp/q8_0" "$tmp/new"
expect 1 'less than 2\^63 bytes' decode q8_0 9223372036854775807 512 "$tmp/q8_0" "$tmp/new"
: > "$tmp/empty"
expect 1 'empty: found 0 bytes' decode q8_0 1 32 "$tmp/empty" "$tmp/new"
expect 1 'no-such-file' decode q8_0 1 32 "$tmp/no-such-file" "$tmp/new"
expect 1 'no-folder/new.*cannot be created' decode q8_0 16 512 "$tmp/q8_0" "$tmp/no-folder/new"
expect 1 'type f32: found no interleaved form' repack f32 16 512 "$source" "$tmp/new"
expect 1 'type iq1_s_r4: found no plain form' repack iq1_s_r4 16 512 "$source" "$tmp/new"
expect 1 'type iq1_s_r4: found no encoder' encode iq1_s_r4 16 512 "$source" "$tmp/new"
expect 1 'empty: found 0 bytes, expected 2048: a float32 for each column' \
    encode q8_0 16 512 "$source" "$tmp/new" --imatrix "$tmp/empty"

# Numbers that cannot be encoded.
{ head -c 2052 "$source"; printf '\0\0\300\177'; tail -c +2057 "$source"; } > "$tmp/nan"
expect 1 'nan: row 1, column 1: found -?nan, expected a finite number' encode q8_0 16 512 "$tmp/nan" "$tmp/new"
{ head -c 8 "$importance"; printf '\0\0\200\277'; tail -c +13 "$importance"; } > "$tmp/negative"
expect 1 'negative: column 2: found -1, expected 0 or more' \
    encode q8_0 16 512 "$source" "$tmp/new" --imatrix "$tmp/negative"

# Command lines.
expect 2 "did you mean 'q8_0'" decode q8_o 16 512 "$tmp/q8_0" "$tmp/new"
expect 2 "is not a type" decode quality 16 512 "$tmp/q8_0" "$tmp/new"
expect 2 "ROWS: found '-1', expected" decode q8_0 -- -1 512 "$tmp/q8_0" "$tmp/new"
expect 2 "COLS: found '5x', expected" decode q8_0 16 5x "$tmp/q8_0" "$tmp/new"
expect 2 'found 4 arguments, expected TYPE ROWS COLS IN OUT' decode q8_0 16 512 "$tmp/q8_0"
expect 2 "found 'more' after" decode q8_0 16 512 "$tmp/q8_0" "$tmp/new" more
expect 2 "did you mean '--imatrix'" encode q8_0 16 512 "$source" "$tmp/new" --imatrx "$importance"
expect 2 'found nothing after --to' repack q8_0 16 512 "$tmp/q8_0" "$tmp/new" --to
expect 2 "found 'both', expected plain or interleaved" repack q8_0 16 512 "$tmp/q8_0" "$tmp/new" --to both
expect 2 'says that IN is so already; if it is not, TYPE is q8_0_r8' \
    repack q8_0 16 512 "$tmp/q8_0" "$tmp/new" --to plain
for name in decode encode repack types; do
    expect 0 "^ferry-gguf $name" "$name" --help
done
expect 0 '^q4_K +12 +256 +144 +0 +4\.5000 +q4_k_r4 +212 +4 ' types
expect 0 '^- +- +32 +6 +2 +1\.5000 +iq1_s_r4 +219 +4 +no' types
expect 2 'expected nothing' types all

# Neither a result nor a part of one is left after a failure.
left=$(find "$tmp" -name 'new*')
[ -z "$left" ] || fail "found $left, expected nothing"
[ $failed -eq 0 ] && echo ok
exit $failed
