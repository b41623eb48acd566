#!/usr/bin/env bash
# A binary with the CUDA backend starts on a machine that has neither toolkit nor driver: it needs no
# library of theirs, and says that there are no GPUs. $1 = folder of the binaries.
set -euo pipefail
binary=$1/test_gpu_runtime

needed=$(ldd "$binary")
if grep -E 'libcuda|libcublas|libnccl|libnvidia' <<< "$needed"; then
    echo "$binary: found it to need libraries of the driver or toolkit, expected none"
    exit 1
fi

# The rest hides the toolkit, which takes a mount namespace.
if ! unshare -m true 2> /dev/null; then
    echo "skipped the start without a toolkit: no mount namespaces here"
    exit 0
fi
hidden=()
for folder in /usr/local/cuda /usr/lib/x86_64-linux-gnu/nvidia; do
    [ -d "$folder" ] && hidden+=("$folder")
done
export binary
env -u LIBRARY_PATH -u LD_LIBRARY_PATH unshare -m bash -c '
    for folder in "$@"; do
        mount -t tmpfs none "$(readlink -f "$folder")"
    done
    exec "$binary"' - "${hidden[@]}"
