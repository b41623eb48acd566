"""What the end-to-end tests share: running a tool, with pipes or on a terminal, and counting what
was wrong. A test is NAME.py, started by NAME.sh with the folders of the binaries and of the source."""
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time

BIN, SOURCE = sys.argv[1], sys.argv[2]
DEMO = SOURCE + "/configs/demo/kjv-moe-q8_0.gguf"
V3 = SOURCE + "/test/data/logits/v3.gguf"
PATIENCE = 100  # seconds for anything: sanitizers are slow

_folder = tempfile.TemporaryDirectory(prefix="ferry-e2e-")
_wrong = 0
# The environment gives options too.
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("FERRY_", "LLAMA_"))}


def temp(name):
    return os.path.join(_folder.name, name)


def write(name, content):
    with open(temp(name), "wb") as f:
        f.write(content)
    return temp(name)


def expect(what, found, wanted):
    if found != wanted:
        wrong("%s: found %r, expected %r" % (what, found, wanted))


def expect_in(what, part, whole):
    if part not in whole:
        wrong("%s: found %r, expected %r in it" % (what, whole[-2000:], part))


def wrong(text):
    global _wrong
    _wrong += 1
    print(text)


def done():
    print("%d wrong" % _wrong)
    sys.exit(_wrong != 0)


class Run:
    """A finished run: code, out, err."""

    def __init__(self, tool, *args, stdin=b"", **more):
        p = subprocess.run([os.path.join(BIN, tool), *args], input=stdin, env=ENV, timeout=PATIENCE,
                           stdout=more.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, **more)
        self.what = " ".join([tool, *args])[:300]
        self.code, self.out, self.err = p.returncode, p.stdout, p.stderr


def succeed(tool, *args, **more):
    r = Run(tool, *args, **more)
    if r.code != 0:
        wrong("%s: left with %d: %r" % (r.what, r.code, r.err[-500:]))
    return r


def refuse(tool, words, *args, code=1, **more):
    """The run ends with the code, prints nothing, and says why in one line that has the words."""
    r = Run(tool, *args, **more)
    expect(r.what + " (status)", r.code, code)
    expect(r.what + " (output)", r.out, b"")
    lines = r.err.decode(errors="replace").splitlines()
    if len(lines) != 1 or not lines[0].startswith(tool + ": error: "):
        wrong("%s: found %r, expected one line '%s: error: ...'" % (r.what, r.err, tool))
    for word in words:
        expect_in(r.what, word.encode(), r.err)
    return r


class Terminal:
    """A tool on a terminal of its own."""

    def __init__(self, tool, *args):
        self.seen, self.at, self.status = b"", 0, None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execve(os.path.join(BIN, tool), [tool, *args], ENV)

    def _read(self, seconds):
        """More of what the tool shows; False at its end or when nothing comes."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            more = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += more
        return bool(more)

    def await_text(self, text, what):
        """Waits until text comes after what was awaited before."""
        end = time.monotonic() + PATIENCE
        while True:
            found = self.seen.find(text, self.at)
            if found >= 0:
                self.at = found + len(text)
                return
            if time.monotonic() > end or not self._read(end - time.monotonic()):
                wrong("%s: found %r, expected %r" % (what, self.seen[self.at:][-500:], text))
                return

    def await_more(self, n, what):
        """Waits for n more bytes of any text."""
        end = time.monotonic() + PATIENCE
        while len(self.seen) < self.at + n:
            if time.monotonic() > end or not self._read(end - time.monotonic()):
                wrong("%s: found %r, expected %d bytes" % (what, self.seen[self.at:], n))
                return
        self.at = len(self.seen)

    def send(self, keys):
        try:
            os.write(self.fd, keys)
        except OSError:  # it has left already
            pass

    def leave(self, what, status):
        """The tool ends by itself with the status, and nothing of it stays."""
        end = time.monotonic() + PATIENCE
        while self._read(max(0, end - time.monotonic())):
            pass
        pid = 0
        while pid == 0 and time.monotonic() < end:
            pid, raw = os.waitpid(self.pid, os.WNOHANG)
            time.sleep(0.01)
        if pid == 0:
            wrong("%s: still runs" % what)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return
        expect(what + " (status)", os.waitstatus_to_exitcode(raw), status)
        try:
            os.killpg(self.pid, 0)
            wrong("%s: left a process behind" % what)
        except ProcessLookupError:
            pass
        os.close(self.fd)
