"""ferry-cli talking in turns: through a pipe and on a terminal, with Ctrl-C and Ctrl-D."""
import time

from end_to_end import (DEMO, V3, Run, Terminal, done, expect, expect_in, succeed, temp, write,
                        wrong)

TALK = ["-m", DEMO, "--log-disable", "-cnv", "--seed", "3", "-c", "512", "--color", "off"]
PLAIN = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"


def output(*args, **more):
    return succeed("ferry-cli", *args, **more).out


# ---- through a pipe: an answer a line, no prompts
two = output(*TALK, "-n", "8", stdin=b"Who is he?\nAnd then?\n")
one = output(*TALK, "-n", "8", stdin=b"Who is he?\n")
expect("the first answer does not know the second question", two[:len(one)], one)
if len(two) <= len(one) or not one.strip():
    wrong("two turns: found %r after %r" % (two, one))
expect("the same again", output(*TALK, "-n", "8", stdin=b"Who is he?\nAnd then?\n"), two)
expect("without a last newline", output(*TALK, "-n", "8", stdin=b"Who is he?\nAnd then?"), two)
expect("empty lines say nothing", output(*TALK, "-n", "8", stdin=b"\nWho is he?\n\n\nAnd then?\n"),
       two)
expect("nothing said", output(*TALK, stdin=b""), b"")
expect("-st", output(*TALK, "-n", "8", "-st", "-p", "Who is he?", stdin=b"And then?\n"), one)
expect("the first message from -p", output(*TALK, "-n", "8", "-p", "Who is he?",
                                           stdin=b"And then?\n"), two)
with_system = output(*TALK, "-n", "8", "-sys", "Speak of fish.", stdin=b"Who is he?\n")
expect("-sysf", output(*TALK, "-n", "8", "-sysf", write("system.txt", b"Speak of fish."),
                       stdin=b"Who is he?\n"), with_system)
own = output(*TALK, "-n", "8", "--chat-template", PLAIN, stdin=b"Who is he?\n")
expect("--chat-template-file", output(*TALK, "-n", "8", "--chat-template-file",
                                      write("plain.jinja", PLAIN.encode()),
                                      stdin=b"Who is he?\n"), own)
if own == one:
    wrong("another template gives the same answer")

# ---- bytes that are not UTF-8, said and answered: it goes on
r = succeed("ferry-cli", *TALK, "-n", "4", stdin=b"\xff\xfe Who\n\xe2\x82\nAnd then?\n")
expect("not UTF-8 (errors)", r.err, b"")
random = ["-m", V3, "--log-disable", "-cnv", "-c", "512", "--temp", "3", "--top-k", "0", "--min-p",
          "0", "--top-p", "1", "-n", "7"]
for seed in range(5):  # random weights answer with random bytes, cut anywhere
    r = succeed("ferry-cli", *random, "--seed", str(seed), stdin=b"a\nb\nc\n")
    expect("random bytes (errors)", r.err, b"")

# ---- the context comes to its end
r = Run("ferry-cli", "-m", DEMO, "-cnv", "-c", "32", "--ignore-eos", stdin=b"Who is he?\nAnd\n")
expect("a full context (status)", r.code, 0)
expect_in("a full context", b"the context is full", r.err)
r = Run("ferry-cli", *TALK, "-c", "8", stdin=b"Who is he and what has he done to be here?\n")
expect("a message beyond the context (status)", r.code, 1)
expect_in("a message beyond the context", b"use a larger -c", r.err)

# ---- templates that cannot be used
for text, word in ((b"{% if %}", b"chat template"), (b"{{ raise_exception('no talk') }}", b"no talk"),
                   (b"{% for x in range(9) %}", b"chat template")):
    r = Run("ferry-cli", *TALK, "--chat-template-file", write("bad.jinja", text), stdin=b"Hello\n")
    expect("a bad template (status)", r.code, 1)
    expect_in("a bad template", word, r.err)
r = Run("ferry-cli", *TALK, "--chat-template-file", temp("none.jinja"))
expect_in("no template", b"none.jinja", r.err)

# ---- on a terminal
ENDLESS = TALK + ["--ignore-eos", "-c", "2048", "-n", "-1"]


def talk(*args):
    t = Terminal("ferry-cli", *args)
    t.await_text(b"> ", "the first question")
    return t


t = talk(*TALK, "-n", "8")
t.send(b"Who is he?\n")
t.await_text(b"Who is he?\r\n", "the echo")
t.await_text(b"\n> ", "the second question")
t.send(b"And then?\n")
t.await_text(b"And then?\r\n", "the second echo")
t.await_text(b"\n> ", "the third question")
answers = t.seen.replace(b"\r", b"").split(b"> ")
expect("the answers of the pipe", b"".join(a.split(b"?\n", 1)[1] for a in answers[1:3]), two)
t.send(b"\x04")
t.leave("Ctrl-D at the question", 0)

t = talk(*ENDLESS)
t.send(b"Who is he?\n")
t.await_text(b"Who is he?\r\n", "the echo")
t.await_more(20, "an endless answer")
t.send(b"\x03")
t.await_text(b"\n> ", "the question after Ctrl-C")
t.send(b"And then?\n")
t.await_text(b"And then?\r\n", "the echo after Ctrl-C")
t.await_more(20, "another endless answer")
t.send(b"\x03")
t.await_text(b"\n> ", "the question after the second Ctrl-C")
t.send(b"\x03")
t.leave("Ctrl-C at the question", 130)

t = talk(*ENDLESS)
t.send(b"Who is he?\n")
t.await_text(b"Who is he?\r\n", "the echo")
t.await_more(20, "an endless answer")
for _ in range(4):  # signals that come at once would count as one
    t.send(b"\x03")
    time.sleep(0.1)
t.leave("Ctrl-C again and again", 130)

t = talk(*ENDLESS[:-4], "-c", "512", "-n", "4", "--color", "on")
t.send(b"half a line\x03")
t.leave("Ctrl-C in a line", 130)
expect("colours are reset at the end", t.seen.rstrip().endswith(b"\033[0m"), True)
done()
