#!/usr/bin/env bash
# See cli_converse.py.
exec python3 -B "${0%.sh}.py" "$@"
