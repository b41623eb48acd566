#!/usr/bin/env bash
# See bench_tools.py.
exec python3 -B "${0%.sh}.py" "$@"
