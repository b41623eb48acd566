#!/usr/bin/env bash
# See logits_tool.py.
exec python3 -B "${0%.sh}.py" "$@"
