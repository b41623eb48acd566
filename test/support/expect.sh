# What shell tests of one tool share; set tool=PATH before. Gives $tmp (a folder that is removed at the
# end), fail, expect and $failed, the status to exit with.
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

fail() {
    echo "$*"
    failed=1
}

# expect STATUS TEXT ARGS...: the status, and a line of output or errors that matches TEXT (unless it
# is empty). They are in $tmp/out then.
expect() {
    local status=$1 text=$2 got
    shift 2
    "$tool" "$@" >"$tmp/out" 2>&1
    got=$?
    [ $got -eq "$status" ] ||
        fail "${tool##*/} $*: found status $got, expected $status: $(head -3 "$tmp/out")"
    [ -z "$text" ] || grep -qE -- "$text" "$tmp/out" ||
        fail "${tool##*/} $*: found no line with '$text' in: $(head -20 "$tmp/out")"
}
