#!/usr/bin/env bash
# A file's name says which file is meant: no two in the tree are the same. README.md and CMakeLists.txt
# stand in many folders; dotfiles and test data (named after what they test) are left out.
. "$(dirname "$0")/lint.bash"

check() {
    local folders=() folder
    for folder in $code_folders configs; do
        [ -d "$folder" ] && folders+=("$folder")
    done
    { find . -maxdepth 1 -type f; find "${folders[@]}" -path test/data -prune -o -type f -print; } |
        awk -F/ '$NF !~ /^(README\.md|CMakeLists\.txt|\..*)$/ {
            if ($NF in first)
                print $0 ": found the name of " first[$NF] ", expected one file of a name"
            else
                first[$NF] = $0
        }'
}

self_test() {
    accepts runtime/a/README.md x cpu/README.md x cpu/CMakeLists.txt x tools/CMakeLists.txt x \
        cpu/a.c x cpu/a.h x test/data/a.c x cpu/.gitignore x tools/.gitignore x
    catches 'pool\.c: found the name of' cpu/pool.c x runtime/base/pool.c x
    catches 'plan\.ini: found the name of' configs/plan.ini x test/unit/plan.ini x
    catches 'LICENSE: found the name of' LICENSE x runtime/LICENSE x
}

lint_main "$@"
