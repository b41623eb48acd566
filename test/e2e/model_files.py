"""Model files as users have them: split, cut, missing, of another kind. Each that cannot be used gets
one clear line."""
import os
import shutil

import gguf_split_files
from end_to_end import DEMO, SOURCE, Run, done, expect, expect_in, refuse, succeed, temp, write

ASK = ["--log-disable", "-c", "64", "-n", "6", "--seed", "1", "-p", "In the beginning"]


def expect_refusal(path, *words):
    for more in ([], ["--no-mmap"]):
        refuse("ferry-cli", words, "-m", path, *ASK, *more)


# ---- split sets
whole = succeed("ferry-cli", "-m", DEMO, *ASK).out
for count in (1, 2, 3, 7):
    parts = gguf_split_files.split(DEMO, temp("set%d" % count), count)
    for more in ([], ["--no-mmap", "--check-tensors"]):
        expect("%d parts" % count, succeed("ferry-cli", "-m", parts[0], *ASK, *more).out, whole)
parts = gguf_split_files.split(DEMO, temp("part"), 3)
expect_refusal(parts[1], "part-00002-of-00003.gguf")  # not the first
os.rename(parts[2], temp("away"))
expect_refusal(parts[0], "part-00003-of-00003.gguf")
shutil.copy(parts[1], parts[2])
expect_refusal(parts[0], "part-00003-of-00003.gguf", "split.no")
os.remove(parts[2])
os.mkdir(parts[2])
expect_refusal(parts[0], "part-00003-of-00003.gguf")

# ---- no model at all
expect_refusal(temp("none.gguf"), "none.gguf", "No such file")
expect_refusal(temp(""), "not a regular file")
expect_refusal("/dev/null", "/dev/null")
expect_refusal(write("empty.gguf", b""), "empty.gguf", "ends at byte 0")
expect_refusal(write("text.gguf", b"This is not a model.\n" * 50), "text.gguf", "not a GGUF file")
expect_refusal(write("page.gguf", b"<!DOCTYPE html><html></html>"), "not a GGUF file")
expect_refusal(write("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
               "pointer.gguf")
os.symlink(temp("nowhere"), temp("link.gguf"))
expect_refusal(temp("link.gguf"), "link.gguf")

# ---- models of which a part is missing, or of another kind
data = open(DEMO, "rb").read()
for n in (3, 24, 1000, 137472, len(data) // 2, len(data) - 33):
    expect_refusal(write("cut.gguf", data[:n]), "cut.gguf")
headers = SOURCE + "/test/data/headers/"
expect_refusal(headers + "deepseek-v2-lite-q4_k_m.header.gguf", "header.gguf")
expect_refusal(SOURCE + "/test/data/tokenize/ggml-vocab-gpt-2.gguf", "general.architecture", "gpt2")
expect_refusal(write("old.gguf", b"GGUF\1\0\0\0" + bytes(64)), "version 1")
expect_refusal(write("big.gguf", b"GGUF\0\0\0\3" + bytes(64)), "big.gguf")

# ---- a weight that holds NaN: the tensor's name on request, no text of garbage without
NORM = "blk.1.attn_norm.weight"
keys, n_keys, tensors = gguf_split_files.read(DEMO)
tensors = [(name, dims, kind, b"\0\0\xc0\x7f" * (len(data) // 4) if name == NORM.encode() else data)
           for name, dims, kind, data in tensors]
gguf_split_files.write_part(temp("nan.gguf"), keys, n_keys, tensors, 0, 1, len(tensors))
refuse("ferry-cli", ["NaN", NORM], "-m", temp("nan.gguf"), *ASK, "--check-tensors")
r = Run("ferry-cli", "-m", temp("nan.gguf"), *ASK)
expect("NaN (status)", r.code, 1)
expect_in("NaN", b"--check-tensors", r.err)

# ---- a context that no memory holds: refused, or mapped and never touched
r = Run("ferry-cli", "-m", DEMO, *ASK, "-c", "16777216", "-mla", "0")
if r.code != 0:
    expect_in("a huge context", b"does not fit with a context of 16777216", r.err)
    expect_in("a huge context", b"\n  -c ", r.err)
done()
