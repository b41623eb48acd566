"""The demo model quantized again: ferry's tools and the engine take what ferry-quantize writes, and
its logits stay close to the reference; also with an importance matrix of ferry-imatrix."""
import array
import math
import os
import re

from end_to_end import DEMO, SOURCE, done, expect, expect_in, succeed, temp, wrong

IDS = SOURCE + "/test/data/logits/kjv.ids.txt"
TEXT = SOURCE + "/test/data/text/kjv-heldout.txt"
N_VOCAB = 4096


def floats(path):
    a = array.array("f")
    a.frombytes(open(path, "rb").read())
    return a


reference = floats(SOURCE + "/test/data/logits/kjv.logits.f32")
size = math.sqrt(sum(x * x for x in reference))


def distance(model):
    """Of its logits from the reference, relative."""
    succeed("ferry-logits", "-m", model, "--ids", IDS, "-o", temp("logits.f32"))
    found = floats(temp("logits.f32"))
    expect(model + " (logits)", len(found), len(reference))
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(found, reference))) / size


def quantize(type_name, *options, name=None):
    out = temp((name or type_name) + ".gguf")
    r = succeed("ferry-quantize", "--allow-requantize", "--log-disable", *options, DEMO, out, type_name, "2")
    expect_in("ferry-quantize", b"bits per weight", r.out)
    return out


def tensors(model):
    """name -> (type, bytes), from ferry-gguf dump."""
    text = succeed("ferry-gguf", "dump", model).out.decode()
    return {m[1]: (m[2], int(m[3])) for m in
            re.finditer(r"^(\S+) +\d+(?: x \d+)* +([a-z]\w+) +(\d+) +\d+$", text, re.M)}


# ---- types: bounds are about 1.4 times what was measured
bounds = {"F16": 0.0035, "Q8_0": 0.006, "Q6_K": 0.022, "Q5_K_M": 0.024, "Q4_K_M": 0.035, "IQ4_XS": 0.04,
          "Q3_K_M": 0.05}
for type_name, bound in bounds.items():
    d = distance(quantize(type_name))
    print("%-8s %.4f" % (type_name, d))
    if not d <= bound:
        wrong("%s: found logits %.4f off, expected at most %.4f" % (type_name, d, bound))

# ---- the mix: more bits for what needs them (of 4 layers, ffn_down of the last two), router and
# norms untouched
found, before = tensors(temp("Q4_K_M.gguf")), tensors(DEMO)
expect("tensors", list(found), list(before))
expect("tensors (number)", len(found), 66)
for name, (kind, n_bytes) in found.items():
    kept = name.endswith("_norm.weight") or "ffn_gate_inp" in name or name.endswith(".bias")
    more = name == "output.weight" or re.match(r"blk\.[23]\.ffn_down", name)
    expect(name, kind, "f32" if kept else "q6_K" if more else "q5_K" if "attn_output" in name else "q4_K")
    expect(name + " (smaller)", n_bytes < before[name][1], not kept)

# ---- interleaved: the same weights, so the same logits but for the order of sums
plain, il = temp("Q4_K_M.gguf"), quantize("Q4_K_R4")
expect("bytes", os.path.getsize(il), os.path.getsize(plain))
expect("interleaved", tensors(il)["blk.1.ffn_up_exps.weight"][0], "q4_k_r4")
expect("lookup", tensors(il)["token_embd.weight"][0], "q4_K")
if distance(il) > bounds["Q4_K_M"]:
    wrong("Q4_K_R4: found logits far off")
succeed("ferry-quantize", "--repack", "--log-disable", plain, temp("repacked.gguf"), "COPY")
expect("repacked", open(temp("repacked.gguf"), "rb").read() == open(il, "rb").read(), True)

# ---- an importance matrix, in both forms
succeed("ferry-imatrix", "-m", DEMO, "-f", TEXT, "-c", "512", "--chunks", "8", "-o", temp("im.gguf"), "--no-ppl")
succeed("ferry-imatrix", "-c", "512", "--in-file", temp("im.gguf"), "-o", temp("im.dat"))
weighed = quantize("IQ4_NL", "--pure", "--imatrix", temp("im.gguf"), name="gguf")
with_it = distance(weighed)
print("IQ4_NL   %.4f with an importance matrix" % with_it)
if with_it > 0.055:
    wrong("IQ4_NL: found logits %.4f off, expected at most 0.055" % with_it)
dump = succeed("ferry-gguf", "dump", weighed).out
expect_in("entries", b"quantize.imatrix.entries_count", dump)
expect_in("chunks", b"quantize.imatrix.chunks_count", dump)
with_dat = distance(quantize("IQ4_NL", "--pure", "--imatrix", temp("im.dat"), name="dat"))
if abs(with_dat - with_it) > 0.1 * with_it:
    wrong("IQ4_NL: found logits %.4f off with im.dat, %.4f with im.gguf" % (with_dat, with_it))

# ---- text
r = succeed("ferry-cli", "-m", il, "-p", "In the beginning", "-n", "8", "--temp", "0", "-no-cnv")
expect("text", len(r.out) > len("In the beginning"), True)
done()
