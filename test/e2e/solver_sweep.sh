# Plans of real headers for 1 to 3 GPUs of 8 to 96 GiB: more VRAM is not slower. $1: binaries.
exec "$1/test_solver" --sweep
