"""A model file that is cut short while a tool has it mapped: an error that names it, no signal."""
import os

from end_to_end import DEMO, Terminal, done, expect_in, temp

MODEL = temp("cut.gguf")
TALK = ["-m", MODEL, "--log-disable", "-cnv", "-c", "256", "-n", "4", "--color", "off", "--seed", "3"]

# Weights in place (with several threads: it may hit any of them), and the embedding alone.
for more in (["--no-repack", "-t", "1"], ["--no-repack", "-t", "4"], ["-t", "2"]):
    with open(DEMO, "rb") as f, open(MODEL, "wb") as g:
        g.write(f.read())
    t = Terminal("ferry-cli", *TALK, *more)
    t.await_text(b"> ", "the prompt")
    os.truncate(MODEL, 4096)
    t.send(b"Who is he?\n")
    t.leave("%s" % more, 1)
    expect_in("%s: what it says" % more, b"ferry-cli: error: " + MODEL.encode(), t.seen)
    expect_in("%s: what it says" % more, b"cut short", t.seen)
    expect_in("%s: what would help" % more, b"--no-mmap", t.seen)

# Everything read at the start: nothing happens.
with open(DEMO, "rb") as f, open(MODEL, "wb") as g:
    g.write(f.read())
t = Terminal("ferry-cli", *TALK, "--no-mmap")
t.await_text(b"> ", "the prompt")
os.truncate(MODEL, 4096)
t.send(b"Who is he?\n")
t.await_text(b"\n> ", "the second question")
t.send(b"\x04")
t.leave("--no-mmap", 0)
done()
