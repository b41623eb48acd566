#!/bin/bash
# Sizes of rows come from fr_row_bytes: nobody outside runtime/quant may read a type's bytes per block
# (fr_type_info.bytes), neither through fr_type_get nor through a variable that holds its result.
set -u
root=$2
bad=0
cd "$root" || exit 1
while IFS= read -r file; do
    vars=$(grep -oE 'fr_type_info[[:space:]]*\*?[[:space:]]*(const[[:space:]]+)?[A-Za-z_][A-Za-z0-9_]*' "$file" |
        sed -E 's/.*[^A-Za-z0-9_]//' | sort -u | paste -sd '|')
    pattern="fr_type_get\([^;]*\)(->|\.)bytes\b${vars:+|\b($vars)(->|\.)bytes\b}"
    if grep -nHE "$pattern" "$file"; then
        bad=1
    fi
done < <(grep -rlE 'fr_type_info|fr_type_get' --include=*.c --include=*.h --include=*.inc --include=*.cu \
    --include=*.cuh runtime cpu cuda planner tools | grep -v '^runtime/quant/')
if [ $bad -ne 0 ]; then
    echo "row_bytes: found block bytes used outside runtime/quant, expected fr_row_bytes" >&2
fi
exit $bad
