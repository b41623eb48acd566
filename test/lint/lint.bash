# What the lint scripts share. A script defines
#   check           prints one line a violation in the tree that is the current folder, else nothing
#   self_test       calls `catches` and `accepts` on small trees of its own
# and ends with: lint_main "$@" ($1 = folder of the binaries, $2 = root of the sources).

code_folders="runtime cpu cuda planner tools test"

# The source files of the folders $2..., with one of the extensions $1 ("c h"); not test data.
source_files() {
    local names=() ext existing=()
    for ext in $1; do
        names+=(-o -name "*.$ext")
    done
    shift
    for folder in "$@"; do
        [ -d "$folder" ] && existing+=("$folder")
    done
    [ ${#existing[@]} -eq 0 ] ||
        find "${existing[@]}" -path test/data -prune -o -type f \( "${names[@]:1}" \) -print | LC_ALL=C sort
}

# The lines of C files (names on standard input) as FILE:LINE:CODE, without comments and with empty
# string and character literals.
c_code() {
    xargs -r awk '
        FNR == 1 { in_comment = 0 }
        {
            out = ""
            for (s = $0; s != "";) {
                if (in_comment) {
                    end = index(s, "*/")
                    in_comment = end == 0
                    s = end ? substr(s, end + 2) : ""
                } else if (!match(s, /["\047]|\/\*|\/\//)) {
                    out = out s
                    s = ""
                } else {
                    out = out substr(s, 1, RSTART - 1)
                    s = substr(s, RSTART)
                    if (substr(s, 1, 2) == "/*") {
                        in_comment = 1
                        s = substr(s, 3)
                        out = out " "
                    } else if (substr(s, 1, 2) == "//") {
                        s = ""
                    } else if (match(s, /^"([^"\\]|\\.)*"/) || match(s, /^\047([^\047\\]|\\.)*\047/)) {
                        out = out substr(s, 1, 1) substr(s, 1, 1)
                        s = substr(s, RLENGTH + 1)
                    } else {
                        out = out substr(s, 1, 1)
                        s = substr(s, 2)
                    }
                }
            }
            print FILENAME ":" FNR ":" out
        }' /dev/null
}

# tree FILE TEXT [FILE TEXT]...: a fresh tree as the current folder (text with printf escapes).
tree() {
    rm -rf "$lint_tmp/tree"
    mkdir -p "$lint_tmp/tree"
    cd "$lint_tmp/tree" || exit 1
    while [ $# -gt 0 ]; do
        mkdir -p "$(dirname "$1")"
        printf '%b\n' "$2" > "$1"
        shift 2
    done
}

# catches PATTERN FILE TEXT...: the check must report a line that matches the extended regex.
catches() {
    local want=$1 got
    shift
    tree "$@"
    got=$(check)
    lint_cases=$((lint_cases + 1))
    if ! grep -qE -- "$want" <<< "$got"; then
        echo "self-test: in $1 ($2): expected a report like '$want', found: ${got:-nothing}"
        lint_failed=1
    fi
}

# accepts FILE TEXT...: the check must stay silent.
accepts() {
    local got
    tree "$@"
    got=$(check)
    lint_cases=$((lint_cases + 1))
    if [ -n "$got" ]; then
        echo "self-test: in $1 ($2): expected no report, found: $got"
        lint_failed=1
    fi
}

lint_main() {
    local root found
    root=$(cd "${2:?usage: $0 BINARIES SOURCES}" && pwd) || exit 1
    if [ ! -d "$root/runtime" ]; then
        echo "$root: found no folder runtime, expected the root of the sources"
        exit 1
    fi
    lint_tmp=$(mktemp -d) || exit 1
    trap 'rm -rf "$lint_tmp"' EXIT
    lint_failed=0
    lint_cases=0
    self_test
    cd "$root" || exit 1
    found=$(check)
    if [ -n "$found" ]; then
        echo "$found"
        lint_failed=1
    fi
    [ $lint_failed -eq 0 ] && echo "ok ($lint_cases self-test cases)"
    exit $lint_failed
}
