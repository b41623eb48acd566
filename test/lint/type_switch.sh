#!/usr/bin/env bash
# Quantized types are rows of a table: no switch over them outside qtype.c, or a new type would need
# code in many places.
. "$(dirname "$0")/lint.bash"

check() {
    source_files "c h cu cuh def inc" runtime cpu cuda planner tools | c_code |
        grep -E ':[0-9]+:(.*[^A-Za-z0-9_])?case[[:space:]]+FR_TYPE_' | grep -v '^runtime/quant/qtype\.c:' |
        sed -E "s/^([^:]*:[0-9]+):[[:space:]]*(.*)/\1: found '\2', expected a column of types.def or a kernel table/"
}

self_test() {
    accepts runtime/quant/qtype.c 'case FR_TYPE_Q4_K: return 1;' cpu/a.c '/* case FR_TYPE_F32: */' \
        cpu/b.c 'case FR_GGUF_TYPE_F32: x = FR_TYPE_F32; use_case FR_TYPE_F32;'
    catches '^cpu/a.c:2:' cpu/a.c 'switch (t) {\n    case FR_TYPE_F32:'
    catches '^runtime/quant/act.c:1:' runtime/quant/act.c 'switch (t) { case  FR_TYPE_##ID: break; }'
    catches '^cuda/a.cu:1:' cuda/a.cu 'case FR_TYPE_Q8_0:'
}

lint_main "$@"
