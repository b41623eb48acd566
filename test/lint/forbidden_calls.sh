#!/usr/bin/env bash
# The boxes neither end the process nor write to its standard streams (base/log.c does, for all), read
# no environment outside runtime/opts, and take their memory from base/mem.c. Tools and tests may.
. "$(dirname "$0")/lint.bash"

# found PATTERN EXCEPT RULE: lines of $code in which PATTERN stands as a word of its own.
found() {
    grep -E ":[0-9]+:(.*[^A-Za-z0-9_.>])?($1)" <<< "$code" | grep -vE "^($2):" |
        sed -E "s|^([^:]*:[0-9]+):[[:space:]]*(.*)|\1: found '\2', expected $3|"
}

check() {
    local code
    code=$(source_files "c h cu cuh def inc" runtime cpu cuda planner | c_code)
    found '(exit|_exit|_Exit|quick_exit|abort)[[:space:]]*\(' - 'a status for the caller'
    found '(printf|vprintf|puts|putchar|perror)[[:space:]]*\(|stdout\>' - 'fr_log or a buffer'
    found 'stderr\>' 'runtime/base/log\.c' 'fr_log'
    found '(secure_)?getenv[[:space:]]*\(' 'runtime/opts/[^:]*' 'an option in runtime/opts'
    found '(malloc|calloc|realloc|reallocarray|strdup|strndup|asprintf|aligned_alloc|posix_memalign)[[:space:]]*\(' \
        'runtime/base/mem\.c' 'fr_mem_alloc or an arena'
}

self_test() {
    accepts runtime/engine/e.c '/* exit(1) printf("x") */\n// abort()\nconst char *s = "exit(1) \\" stdout";' \
        runtime/a/f.c 'fr_file_abort(&f); snprintf(s, n, "x"); on_exit_(1); f->abort(1); ops.exit(2);' \
        runtime/a/g.c 'fr_buf_printf(&b, err, "%d", 1); vsnprintf(a, b, c, d); int my_stdout;' \
        runtime/a/h.c '/* a\n exit(1)\n*/ int x;' runtime/base/log.c 'fprintf(stderr, "x");' \
        runtime/opts/o.c 'getenv("X");' runtime/base/mem.c 'p = aligned_alloc(64, n);' \
        tools/t.c 'printf("x"); exit(0); malloc(1); getenv("X");' test/unit/t.c 'abort();'
    catches "^runtime/a/b.c:2: found 'exit\(1\);'" runtime/a/b.c '\n    exit(1);'
    catches '^cpu/b.c:1:' cpu/b.c 'if (x) abort ();'
    catches '^planner/b.c:1:' planner/b.c '  _exit(1);'
    catches '^cuda/b.cu:1:' cuda/b.cu 'printf("%d", threadIdx.x);'
    catches '^runtime/a/b.h:1:' runtime/a/b.h 'puts("x");'
    catches '^runtime/a/b.c:1:' runtime/a/b.c 'fprintf(stdout, "x");'
    catches '^runtime/a/b.c:1:' runtime/a/b.c "case '\"': fputs(s, stderr);"
    catches '^runtime/base/mem.c:1:' runtime/base/mem.c 'fprintf(stderr, "x");'
    catches '^runtime/a/b.c:1:' runtime/a/b.c '/* x */ (void)getenv("FERRY_X"); /* y */'
    catches '^runtime/a/b.c:3:' runtime/a/b.c '/* x\n */ int y;\nchar *p = strdup(s);'
    catches '^runtime/a/b.def:1:' runtime/a/b.def 'X(A, malloc(3))'
}

lint_main "$@"
