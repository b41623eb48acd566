"""ferry-cli continuing a text: the same output every time, its options, output that goes nowhere."""
import os
import signal
import subprocess
import time

from end_to_end import (BIN, DEMO, ENV, PATIENCE, SOURCE, V3, Run, Terminal, done, expect,
                        expect_in, refuse, succeed, temp, write, wrong)

QUIET = ["-m", DEMO, "--log-disable", "-c", "128"]
SHORT = QUIET + ["-n", "12", "--seed", "5"]


def output(*args, **more):
    return succeed("ferry-cli", *args, **more).out


# ---- the same text every time
first = output(*SHORT, "-p", "In the beginning", "-t", "1")
expect_in("the prompt is shown", b"In the beginning", first[:16])
expect("a second run", output(*SHORT, "-p", "In the beginning", "-t", "1"), first)
expect("two threads", output(*SHORT, "-p", "In the beginning", "-t", "2"), first)
expect("read, not mapped", output(*SHORT, "-p", "In the beginning", "--no-mmap"), first)
expect("small batches", output(*SHORT, "-p", "In the beginning", "-ub", "1"), first)
if output(*QUIET, "-n", "12", "--seed", "6", "-p", "In the beginning") == first:
    wrong("another seed gives the same text")
greedy = [output(*QUIET, "-n", "8", "--temp", "0", "--seed", s, "-p", "And") for s in ("1", "2")]
expect("greedy picks do not depend on the seed", greedy[0], greedy[1])
demo = succeed("ferry-cli", "--config", SOURCE + "/configs/demo.ini", "-n", "8").out
expect("the demo's settings", demo,
       succeed("ferry-cli", "--config", SOURCE + "/configs/demo.ini", "-n", "8", "-t", "1").out)
expect_in("the demo's prompt", b"In the beginning", demo[:16])

# ---- where the prompt comes from
path = write("prompt.txt", b"In the beginning\n")
expect("-f", output(*SHORT, "-f", path), first)
expect("-f -", output(*SHORT, "-f", "-", stdin=b"In the beginning"), first)
expect("-e", output(*SHORT, "-p", r"And\x20God\nsaid", "-n", "0"), b"And God\nsaid\n")
expect("--no-escape", output(*SHORT, "-p", r"And\nGod", "-n", "0", "--no-escape"), b"And\\nGod\n")
expect("--no-display-prompt", output(*SHORT, "-p", "In the beginning", "--no-display-prompt"),
       first[len("In the beginning"):])
expect("-n 0", output(*SHORT, "-p", "In the beginning", "-n", "0"), b"In the beginning\n")

# ---- where it stops
word = first[16:].decode().split()[2]
cut = output(*SHORT, "-p", "In the beginning", "-r", "no such text", "-r", word)
expect("-r " + word, cut, first[:first.index(word.encode(), 16)] + b"\n")
newline = output(*QUIET, "-p", "In the beginning", "-n", "100", "--seed", "5", "-r", r"\n")
expect("-r \\n", newline.count(b"\n"), 1)
expect("-r of nothing", output(*SHORT, "-p", "In the beginning", "-r", ""), first)
r = succeed("ferry-cli", "-m", DEMO, "-c", "24", "--ignore-eos", "-p", "In the beginning")
expect_in("a full context is told", b"the context is full", r.err)
r = Run("ferry-cli", *QUIET, "-c", "8", "-p", "In the beginning " * 4)
expect("a prompt beyond the context (status)", r.code, 1)
expect_in("a prompt beyond the context", b"expected at most 8; use a larger -c", r.err)

# ---- control tokens: token 3 of the small model is <|User|>
user = "<\uff5cUser\uff5c>".encode()
forced = ["-m", V3, "--log-disable", "-c", "64", "-n", "2", "--logit-bias", "3+1000", "-p", "a"]
expect("--special", output(*forced, "--special"), b"a" + 2 * user + b"\n")
expect("without --special", output(*forced), b"a\n")

# ---- what stands on standard error
r = succeed("ferry-cli", *SHORT[:2], "-n", "2", "-p", "In")
for word in (b"model: KJV MoE 12M (deepseek2)", b"memory: KV cache", b"tokens/s"):
    expect_in("standard error", word, r.err)
expect("--log-disable", succeed("ferry-cli", *SHORT, "-p", "In").err, b"")
profiled = succeed("ferry-cli", *SHORT, "-p", "In", "--profile").err
for kind in (b"single tokens:", b"attention core", b"experts gate/up", b"sampling", b"layer 0"):
    expect_in("--profile", kind, profiled)
expect_in("--memory-report", b"memory on the CPU",
          succeed("ferry-cli", *SHORT, "-p", "In", "--memory-report").err)

# ---- usage
refuse("ferry-cli", ["--promt", "--prompt"], "--promt", "x", code=2)
refuse("ferry-cli", ["--seed"], "-m", DEMO, "--seed", "x", code=2)
refuse("ferry-cli", ["-c", "-5", "0 to"], "-m", DEMO, "-c", "-5", code=2)
refuse("ferry-cli", ["--model"], "-p", "x")
refuse("ferry-cli", ["nothing.txt"], *QUIET, "-f", temp("nothing.txt"))
refuse("ferry-cli", ["nothing.ini"], "--config", temp("nothing.ini"), code=2)
expect_in("a bad --logit-bias", b"expected ID+X", Run("ferry-cli", *SHORT, "--logit-bias", "x").err)
expect("--version", output("--version"), b"ferry-cli 0.1.0\n")
usage = output("--help")
for word in (b"usage: ferry-cli", b"--prompt", b"--ctx-size", b"--reverse-prompt"):
    expect_in("--help", word, usage)
config = output("--dump-config", "-n", "7", "-m", "x", "--config", SOURCE + "/configs/demo.ini")
for line in config.decode().splitlines():
    if line.startswith("n-predict"):
        expect("--dump-config", line.split(), ["n-predict", "=", "7", ";", "command", "line"])
    if line.startswith("top-p"):
        expect_in("--dump-config", "demo.ini", line)

# ---- output that goes nowhere
if os.path.exists("/dev/full"):
    for args in (["--help"], SHORT + ["-p", "In the beginning"]):
        with open("/dev/full", "wb") as full:
            r = Run("ferry-cli", *args, stdout=full)
        expect("a full disk (status)", r.code, 1)
        expect_in("a full disk", b"standard output: cannot be written", r.err)
ENDLESS = [os.path.join(BIN, "ferry-cli"), "-m", DEMO, "--ignore-eos", "-p", "In", "-n", "-1"]


def closed_pipe(ignore):
    """The reader goes away after the first byte."""
    p = subprocess.Popen(ENDLESS, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         restore_signals=not ignore)
    p.stdout.read(1)
    p.stdout.close()
    err = p.stderr.read()
    p.stderr.close()
    return p.wait(PATIENCE), err


expect("a closed pipe", closed_pipe(False)[0], -signal.SIGPIPE)
code, err = closed_pipe(True)  # Python starts its children with SIGPIPE ignored
expect("a closed pipe, SIGPIPE ignored", code, 1)
expect_in("a closed pipe, SIGPIPE ignored", b"standard output: cannot be written", err)
expect("generation goes on without a reader", b"generation:" in err, False)


def closed(what, *args):
    """The run with some of its standard files closed: status and what stands in the others."""
    p = subprocess.run(["bash", "-c", '"$@" ' + what, "-", os.path.join(BIN, "ferry-cli"), *args],
                       env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)
    return p.returncode, p.stdout, p.stderr


IN_THE = SHORT + ["-p", "In the beginning"]
code, out, err = closed(">&-", *IN_THE)
expect("no standard output (status)", code, 1)
expect_in("no standard output", b"standard output: cannot be written", err)
expect("no standard error", closed("2>&-", *IN_THE[:2], *IN_THE[3:], "-t", "1"), (0, first, b""))
expect("no standard input", closed("<&-", *IN_THE, "-t", "1"), (0, first, b""))
expect("no standard input to read lines from", closed("<&-", *SHORT, "-cnv"), (0, b"", b""))

# ---- memory that the system does not give: an error or success, nothing else
for kib in [4000 << (i // 2) | (2000 << (i // 2) if i % 2 else 0) for i in range(2, 14)]:
    limit = "ulimit -v %d && " % kib
    if subprocess.run(["bash", "-c", limit + '"$0" --version', ENDLESS[0]], env=ENV,
                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        continue  # not even the program fits (a sanitizer's shadow never does)
    p = subprocess.run(["bash", "-c", limit + 'exec "$@"', "-", ENDLESS[0], *IN_THE], env=ENV,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)
    if p.returncode not in (0, 1) or (p.returncode == 1 and b"ferry-cli: error: " not in p.stderr):
        wrong("%d KiB of memory: left with %d: %r" % (kib, p.returncode, p.stderr))
    if p.returncode == 0:
        expect("%d KiB of memory" % kib, p.stdout, first)

# ---- Ctrl-C
t = Terminal("ferry-cli", "-m", DEMO, "--ignore-eos", "-p", "In the beginning", "--simple-io")
t.await_text(b"In the beginning", "the prompt")
t.await_more(10, "the text")
t.send(b"\x03")
t.await_text(b"generation:", "Ctrl-C")
t.leave("Ctrl-C ends a text", 130)

LONG = write("long.txt", b"And God said, Let there be light. " * 200)
t = Terminal("ferry-cli", "-m", DEMO, "-f", LONG, "-ub", "1", "--no-display-prompt", "-n", "1")
t.await_text(b"cpu: ", "the model's description")
time.sleep(0.5)
began = time.monotonic()
t.send(b"\x03")
t.leave("Ctrl-C in a prompt", 130)
if time.monotonic() - began > 5:
    wrong("Ctrl-C in a prompt: took %.1f s" % (time.monotonic() - began))

# ---- the progress bar, on a terminal only
t = Terminal("ferry-cli", *SHORT[:2], "--no-mmap", "-p", "In the beginning", "-n", "2")
t.await_text(b"\rloading [", "the progress bar")
t.await_text(b"100 %", "the progress bar's end")
t.await_text(b"In the beginning", "the text after the bar")
t.leave("--no-mmap", 0)
r = succeed("ferry-cli", *SHORT[:2], "--no-mmap", "-p", "In the beginning", "-n", "2")
expect("a bar without a terminal", b"loading" in r.err, False)

# ---- more text from the terminal
t = Terminal("ferry-cli", *QUIET, "-i", "-n", "6", "-p", "In the beginning", "--color", "off")
t.await_text(b"In the beginning", "-i: the prompt")
t.await_text(b"\n> ", "-i: the question")
t.send(b"And God said\n")
t.await_text(b"And God said\r\n", "-i: the echo")
t.await_text(b"\n> ", "-i: the second question")
t.send(b"\x04")
t.leave("-i, Ctrl-D", 0)
done()
