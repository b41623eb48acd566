#!/usr/bin/env python3
"""Registers, spills and shared memory of every kernel, as ptxas tells them.

    test/bench/gpu_registers.py [sm_80 sm_86 ...]     (default: sm_80 sm_86 sm_89 sm_90)

Compiles cuda/*.cu with the build's flags. Instances of a template (one for each form of weights) are
one line: how many there are, and the most of each figure. Needs nvcc; exits with 1 when a kernel
spills.
"""
import collections
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = ["-std=c++17", "--fmad=false", "-D_GNU_SOURCE", f"-I{ROOT}/runtime", f"-I{ROOT}",
         "-cubin", "-o", "/dev/null", "--resource-usage"]
ENTRY = re.compile(r"Compiling entry function '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers.*?(?:, (\d+) bytes smem)?(?:,|$)")


def demangle(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True,
                          check=True).stdout
    return dict(zip(names, text.splitlines()))


def kernel_of(signature):
    """'void ns::matvec<form_q4_K_plain, 4>(Job)' -> 'matvec'"""
    return re.sub(r"[<(].*", "", signature.replace("(anonymous namespace)::", "")).split("::")[-1] \
        .split(" ")[-1]


def measure(source, arch):
    run = subprocess.run(["nvcc", *FLAGS, f"-arch={arch}", str(source)], capture_output=True,
                         text=True)
    if run.returncode != 0:
        sys.exit(f"{source.name}, {arch}: nvcc failed:\n{run.stderr}")
    figures, entry = {}, None
    for line in (run.stdout + run.stderr).splitlines():
        if found := ENTRY.search(line):
            entry = found[1]
            figures[entry] = [0, 0, 0]
        elif entry and (found := SPILLS.search(line)):
            figures[entry][1] = int(found[2]) + int(found[3])
        elif entry and (found := USED.search(line)):
            figures[entry][0] = int(found[1])
            figures[entry][2] = int(re.search(r"(\d+) bytes smem", line)[1]) \
                if "bytes smem" in line else 0
    names = demangle(list(figures))
    kernels = collections.defaultdict(list)
    for entry, values in figures.items():
        kernels[kernel_of(names[entry])].append(values)
    return kernels


def main():
    archs = sys.argv[1:] or ["sm_80", "sm_86", "sm_89", "sm_90"]
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True)
    print(version.stdout.strip().splitlines()[-1])
    print(f"{'file':<22}{'kernel':<22}{'arch':<8}{'instances':>9}{'registers':>11}"
          f"{'spilled B':>11}{'shared B':>10}")
    spilled = False
    for source in sorted(ROOT.glob("cuda/*.cu")):
        for arch in archs:
            for kernel, all_values in sorted(measure(source, arch).items()):
                most = [max(v[i] for v in all_values) for i in range(3)]
                spilled = spilled or most[1] > 0
                print(f"{source.name:<22}{kernel:<22}{arch:<8}{len(all_values):>9}{most[0]:>11}"
                      f"{most[1]:>11}{most[2]:>10}", flush=True)
    sys.exit(1 if spilled else 0)


if __name__ == "__main__":
    main()
