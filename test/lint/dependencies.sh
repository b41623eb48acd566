#!/usr/bin/env bash
# The dependency law: a box includes only headers of the boxes to its left (README.md).
. "$(dirname "$0")/lint.bash"

# box: what it may include besides itself
laws='
base:
quant: base
gguf: base quant
model: base quant gguf
planner: base quant gguf model kv
cpu: base quant
cuda: base quant
opts: base
sample: base
token: base quant gguf
kv: base quant gguf model
store: base quant gguf model planner kv cpu cuda
engine: base quant gguf model planner kv cpu cuda store token sample
server: base engine
'

check() {
    source_files "c h cu cuh def inc" runtime cpu cuda planner | xargs -r awk -v laws="$laws" '
        BEGIN {
            n = split(laws, lines, "\n")
            for (i = 1; i <= n; i++) {
                m = split(lines[i], words, /[: ]+/)
                if (m > 0)
                    known[words[1]] = 1
                for (k = 1; k <= m; k++)
                    if (words[k] != "")
                        allowed[words[1], words[k]] = 1
            }
        }
        /^[ \t]*#[ \t]*include[ \t]*"/ {
            split(FILENAME, path, "/")
            box = path[1] == "runtime" ? path[2] : path[1]
            split($0, quoted, "\"")
            target = quoted[2]
            sub(/\/.*/, "", target)
            where = FILENAME ":" FNR ": "
            if (!(box in known))
                print where "box " box " is not in the law, expected a row in test/lint/dependencies.sh"
            else if (!((box, target) in allowed))
                print where "found an include of \"" quoted[2] "\", expected only boxes to the left of " box
        }' /dev/null
}

self_test() {
    accepts runtime/base/a.h '#include <stdio.h>\n#include "base/b.h"' cpu/k.c '#include "quant/q.h"' \
        runtime/engine/e.c '#include "store/s.h"\n#include "cuda/c.h"\n#include "token/t.h"' \
        runtime/store/s.c '#include "kv/kv.h"\n#include "planner/plan.h"' \
        tools/main.c '#include "server/http.h"' test/unit/test_a.c '#include "testing.h"'
    catches '^runtime/base/a.h:2: .*"quant/q.h"' runtime/base/a.h '\n#include "quant/q.h"'
    catches '^cpu/x86/k.c:1:' cpu/x86/k.c '#include "model/m.h"'
    catches '^cpu/k.c:1:' cpu/k.c '#include "cuda/c.h"'
    catches '^cuda/k.cu:1:' cuda/k.cu '#include "cpu/c.h"'
    catches '^cuda/k.cuh:1:' cuda/k.cuh '  #  include "planner/p.h"'
    catches '^planner/p.c:1:' planner/p.c '#include "store/s.h"'
    catches '^runtime/sample/s.c:1:' runtime/sample/s.c '#include "quant/q.h"'
    catches '^runtime/opts/o.c:1:' runtime/opts/o.c '#include "gguf/g.h"'
    catches '^runtime/token/t.c:1:' runtime/token/t.c '#include "model/m.h"'
    catches '^runtime/model/arch.def:1:' runtime/model/arch.def '#include "kv/kv.h"'
    catches '^runtime/store/s.c:1:' runtime/store/s.c '#include "engine/e.h"'
    catches '^runtime/engine/e.c:1:' runtime/engine/e.c '#include "server/http.h"'
    catches '^runtime/server/h.c:1:' runtime/server/h.c '#include "store/s.h"'
    catches '^runtime/base/a.c:1:' runtime/base/a.c '#include "a.h"'
    catches 'box extra is not in the law' runtime/extra/a.c '#include "base/a.h"'
}

lint_main "$@"
