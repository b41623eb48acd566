#!/usr/bin/env bash
# ferry-gguf decode and repack over the vectors of a foreign producer (data/quants), as files. $1:
# binaries, $2: source tree.
set -u
tool=$1/ferry-gguf
[ -x "$tool" ] || { echo "$tool: not found"; exit 1; }
data=$2/test/data/quants
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

fail() {
    echo "$*"
    failed=$((failed + 1))
    [ $failed -lt 10 ] || exit 1
}

# The words of a file of floats, without the sign of zero: some types differ in it.
words() {
    od -An -v -tx4 -w4 "$1" | sed 's/80000000/00000000/'
}

# The vector of the same weights in the other layout: its file's name.
other() {
    local set=$1 name=$2 base
    base=$("$tool" types | awk -v n="$name" '$7 == n { print $1 } $1 == n { print $7 }')
    [ -f "$data/$set/$base.q" ] && echo "$base"
}

n_decoded=0
n_repacked=0
while read -r set name _ rows cols floats; do
    [[ $set == "#" ]] && continue
    "$tool" decode "$name" "$rows" "$cols" "$data/$set/$name.q" "$tmp/out.f32" || fail "decode $set/$name"
    cmp -s "$tmp/out.f32" "$data/$set/$floats.f32" ||
        diff -q <(words "$tmp/out.f32") <(words "$data/$set/$floats.f32") > /dev/null ||
        fail "decode $set/$name: found other floats, expected those of $floats.f32"
    n_decoded=$((n_decoded + 1))
    to=$(other "$set" "$name")
    [ -n "$to" ] || continue
    "$tool" repack "$name" "$rows" "$cols" "$data/$set/$name.q" "$tmp/out.q" || fail "repack $set/$name"
    cmp -s "$tmp/out.q" "$data/$set/$to.q" || fail "repack $set/$name: found other bytes, expected $to.q"
    n_repacked=$((n_repacked + 1))
done < "$data/manifest.txt"

[ "$n_decoded" -eq 134 ] || fail "found $n_decoded vectors decoded, expected 134"
[ "$n_repacked" -eq 96 ] || fail "found $n_repacked vectors repacked, expected 96"
[ $failed -eq 0 ] && echo "ok ($n_decoded decoded, $n_repacked repacked)"
exit $failed
