#!/usr/bin/env bash
# clang-format has nothing to change. Its versions differ in details, so only the one that the tree is
# written with counts; without it this test passes with a message.
. "$(dirname "$0")/lint.bash"

version=14
formatter=
for name in "clang-format-$version" clang-format; do
    if "$name" --version 2> /dev/null | grep -qE "version $version\."; then
        formatter=$name
        break
    fi
done
if [ -z "$formatter" ]; then
    echo "skipped: no clang-format $version"
    exit 0
fi
style=$(cd "${2:?}" && pwd)/.clang-format

check() {
    source_files "c h cu cuh" $code_folders |
        xargs -r "$formatter" "--style=file:$style" --dry-run --ferror-limit=1 2>&1 |
        grep -E '^[^ ]+:[0-9]+:[0-9]+: ' | cut -d: -f1,2 | awk -F: '!seen[$1]++' |
        sed 's/$/: found other formatting, expected that of clang-format -i/'
}

self_test() {
    accepts runtime/a.c 'int f(char *p)\n{\n    return *p;\n}'
    catches '^runtime/a.c:[12]: ' runtime/a.c 'int f(char* p) {\n  return *p;\n}'
    catches '^cpu/a.h:1: ' cpu/a.h 'int  x;'
    catches '^test/unit/a.c:1: ' test/unit/a.c 'int f(int a,int b);'
}

lint_main "$@"
