"""ferry-logits: its file is whole or not there."""
import glob
import os
import signal
import subprocess
import time

from end_to_end import (BIN, DEMO, ENV, PATIENCE, SOURCE, V3, done, expect, refuse, succeed, temp,
                        write, wrong)

IDS = SOURCE + "/test/data/logits/ids.txt"
OUT = temp("logits.f32")


def expect_no_file(what):
    expect(what + " (files)", glob.glob(OUT + "*"), [])


def expect_refusal(words, *args, **more):
    refuse("ferry-logits", words, *args, **more)
    expect_no_file(" ".join(args))


def refuse_ids(text, *words):
    expect_refusal(words, "-m", V3, "--ids", write("ids.txt", text), "-o", OUT)


# ---- right
n_ids = len(open(IDS).read().split())
succeed("ferry-logits", "-m", V3, "--ids", IDS, "-o", OUT)
whole = open(OUT, "rb").read()
expect("bytes", len(whole), n_ids * 1024 * 4)
expect("files", glob.glob(OUT + "*"), [OUT])
succeed("ferry-logits", "-m", V3, "--ids", IDS, "-o", OUT, "-t", "1", "--no-mmap")
expect("one thread", open(OUT, "rb").read() == whole, True)
write("commas.txt", open(IDS).read().replace(" ", ", ").encode())
succeed("ferry-logits", "-m", V3, "--ids", temp("commas.txt"), "-o", OUT)
expect("ids between commas", open(OUT, "rb").read() == whole, True)
os.remove(OUT)

# ---- wrong
expect_refusal(["--model"], "--ids", IDS, "-o", OUT)
expect_refusal(["--ids"], "-m", V3, "-o", OUT)
expect_refusal(["--output"], "-m", V3, "--ids", IDS)
expect_refusal(["--modle", "--model"], "--modle", V3, "--ids", IDS, "-o", OUT, code=2)
expect_refusal(["none.txt"], "-m", V3, "--ids", temp("none.txt"), "-o", OUT)
expect_refusal(["none.gguf"], "-m", temp("none.gguf"), "--ids", IDS, "-o", OUT)
expect_refusal(["nowhere"], "-m", V3, "--ids", IDS, "-o", temp("nowhere/logits.f32"))
expect_refusal(["expected at most 50"], "-m", V3, "--ids", IDS, "-o", OUT, "-c", "50")
refuse_ids(b"", "found none")
refuse_ids(b"1 2 three", "ids.txt", "three", "byte 4")
refuse_ids(b"1 -2", "ids.txt", "-2")
refuse_ids(b"1 99999999999999999999", "ids.txt")
refuse_ids(b"1 2\0 3", "ids.txt", "byte 3")
refuse_ids(b"1 1024", "1024", "expected 0 to 1023")
old = write("logits.f32", b"as before")
refuse("ferry-logits", ["1024"], "-m", V3, "--ids", write("ids.txt", b"1024"), "-o", OUT)
expect("a file that was there stays", open(old, "rb").read(), b"as before")
os.remove(old)

# ---- stopped in the middle
many = write("many.txt", b" ".join(b"%d" % (i % 4000) for i in range(2000)))
p = subprocess.Popen([os.path.join(BIN, "ferry-logits"), "-m", DEMO, "--ids", many, "-o", OUT, "-ub",
                      "1"], env=ENV, stderr=subprocess.PIPE)
end = time.monotonic() + PATIENCE
while not glob.glob(OUT + "*") and time.monotonic() < end:
    time.sleep(0.01)
p.send_signal(signal.SIGINT)
_, err = p.communicate(timeout=PATIENCE)
expect("Ctrl-C (status)", p.returncode, 1)
if b"interrupted" not in err:
    wrong("Ctrl-C: found %r" % err)
expect_no_file("Ctrl-C")
done()
