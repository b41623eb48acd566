#!/usr/bin/env bash
# See model_files.py.
exec python3 -B "${0%.sh}.py" "$@"
