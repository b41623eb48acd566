#!/usr/bin/env bash
# See file_cut_short.py.
exec python3 -B "${0%.sh}.py" "$@"
