#!/usr/bin/env bash
# Every header compiles alone, and twice: it includes what it needs and has a guard. A header of
# AVX2 kernels (its name says so) gets the flags of their sources.
. "$(dirname "$0")/lint.bash"

cc=${CC:-cc}
cflags="-std=gnu11 -fsyntax-only -Wall -Wextra -Werror -Wno-unused-function -D_GNU_SOURCE -Iruntime -I. -Itest -Itools"
cflags="$cflags $(pkg-config --cflags jansson 2> /dev/null)"

check_header() {
    local isa="-march=x86-64-v2" text
    case $1 in
    *avx2*) isa="-mavx2 -mfma -mf16c -mbmi2" ;;
    *avx512*) isa="-march=x86-64-v4 -mavx512vnni" ;;
    esac
    text=$(printf '#include "%s"\n#include "%s"\n' "$1" "$1" | $cc $cflags $isa -x c - 2>&1) ||
        printf '%s: found %s, expected it to compile alone\n' "$1" "$(grep -m1 -E 'error' <<< "$text")"
}
export -f check_header

check() {
    export cc cflags
    source_files "h" runtime cpu cuda planner tools | xargs -r -n 1 -P 2 bash -c 'check_header "$1"' -
}

self_test() {
    accepts runtime/a/good.h '#ifndef G\n#define G\n#include <stdint.h>\ntypedef int32_t token;\n#endif' \
        cpu/k_avx2.h '#ifndef K\n#define K\n#include <immintrin.h>
static inline __m256 twice(__m256 x) { return _mm256_fmadd_ps(x, x, x); }\n#endif' \
        cpu/uses.h '#ifndef U\n#define U\n#include "a/good.h"\ntoken next(token t);\n#endif'
    catches '^runtime/a/bad.h: .*int32_t' runtime/a/bad.h '#ifndef B\n#define B\nint32_t x(void);\n#endif'
    catches '^cpu/twice.h: .*redefinition' cpu/twice.h 'struct s { int x; };'
    catches '^planner/gone.h: .*No such file' planner/gone.h '#include "base/gone_too.h"'
}

if ! command -v "$cc" > /dev/null; then
    echo "skipped: no C compiler '$cc' (set CC)"
    exit 0
fi
lint_main "$@"
