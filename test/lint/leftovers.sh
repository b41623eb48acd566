#!/usr/bin/env bash
# No switched-off code and no notes to self.
. "$(dirname "$0")/lint.bash"

check() {
    source_files "c h cu cuh def inc" $code_folders |
        xargs -r grep -nHE '^[[:space:]]*#[[:space:]]*if[[:space:]]+[01]([^0-9a-zA-Z]|$)' |
        sed -E "s/^([^:]*:[0-9]+):(.*)/\1: found '\2', expected code that is used/"
    { source_files "c h cu cuh def inc sh bash py cmake ini" $code_folders configs
      find . -name CMakeLists.txt -not -path './build*'; } | grep -v '^test/lint/' |
        xargs -r grep -nHwE 'TODO|FIXME|XXX' |
        sed -E "s/^([^:]*:[0-9]+):[[:space:]]*(.*)/\1: found '\2', expected it done or left out/"
}

self_test() {
    accepts runtime/a.c '#if FR_X\n#endif\n#if 10 < X\n#endif\nmkstemp("/tmp/fXXXXXX"); int IQ3_XXS, TODOS;' \
        test/data/x.c 'TODO' test/lint/x.sh 'TODO'
    catches '^runtime/a.c:2:' runtime/a.c '\n#if 0\n#endif'
    catches '^cpu/a.h:1:' cpu/a.h ' #  if 1 /* for now */'
    catches '^cuda/a.cu:1:' cuda/a.cu '/* TODO: faster */'
    catches '^test/unit/a.c:1:' test/unit/a.c 'x(); // FIXME'
    catches '^tools/a.py:1:' tools/a.py '# XXX'
    catches 'CMakeLists.txt:1:' CMakeLists.txt '# TODO later'
}

lint_main "$@"
