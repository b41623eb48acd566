#!/usr/bin/env bash
# See cli_complete.py.
exec python3 -B "${0%.sh}.py" "$@"
