# The solver on 1,000 random machines (test/unit/test_solver.c). $1: binaries.
exec "$1/test_solver" --all
