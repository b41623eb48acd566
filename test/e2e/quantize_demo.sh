#!/usr/bin/env bash
# See quantize_demo.py.
exec python3 -B "${0%.sh}.py" "$@"
