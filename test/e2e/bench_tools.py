"""ferry-bench, ferry-sweep-bench and ferry-batched-bench on the demo model: their tables to the letter,
the other formats through real parsers, pictures, and what they refuse. No speed is judged."""
import csv
import io
import json
import math
import os
import re
import sqlite3
import xml.etree.ElementTree

from end_to_end import DEMO, V3, done, expect, expect_in, refuse, succeed, temp, write, wrong

SMALL = ["-t", "2", "--log-disable"]


def lines_of(run):
    return run.out.decode().splitlines()


def match(what, pattern, line):
    m = re.fullmatch(pattern, line)
    if not m:
        wrong("%s: found %r, expected %r" % (what, line, pattern))
    return m


# ---- ferry-bench: the table
HEAD = ("| model                          |       size |     params | backend    | threads |"
        "            test |                  t/s |")
RULE = ("| ------------------------------ | ---------: | ---------: | ---------- | ------: |"
        " --------------: | -------------------: |")
ROW = (r"\| deepseek2 12M Q8_0             \|  12\.46 MiB \|    12\.27 M \| CPU        \|       2 \|"
       r" {15}\| +\d+\.\d\d ± \d+\.\d\d \|")


def row(test, more=""):
    return ROW.replace(" {15}", " " + re.escape("%15s" % test) + " ") + more


r = succeed("ferry-bench", "-m", DEMO, "-p", "16", "-n", "4", "-pg", "16,4", "-gp", "16,4", "-d", "0,8", "-r", "2",
            "--no-roofline", *SMALL)
found = lines_of(r)
tests = ["pp16", "tg4", "pp16+tg4", "pp16 @ d8", "tg4 @ d8", "pp16+tg4 @ d8", "tg4@pp16"]
expect("lines", len(found), 2 + len(tests) + 2)
expect("head", found[0], HEAD)
expect("rule", found[1], RULE)
for i, test in enumerate(tests):
    match(test, row(test), found[2 + i])
    expect(test + " (width)", len(found[2 + i]), len(HEAD))
match("build", r"build: ferry-\d+\.\d+\.\d+ \(\d+\)", found[-1])
expect("messages", r.err, b"")

# Without options: pp512 and tg128, and the roofline.
r = succeed("ferry-bench", "-m", DEMO, "-r", "1", *SMALL)
found = lines_of(r)
expect("head", found[0], HEAD + "     roofline |")
match("pp512", row("pp512", r" +\d+ % int8 \|"), found[2])
match("tg128", row("tg128", r" +\d+ % read \|"), found[3])
match("yardsticks", r"yardsticks: reading \d+\.\d to \d+\.\d GB/s, int8 products \d+ to \d+ GOPS", found[-1])

# Columns for what is not the default, every combination, the interpreter's other spellings.
r = succeed("ferry-bench", "-m", DEMO + "," + V3, "-p", "8", "-n", "0", "-r", "1", "-ctk", "f16,q8_0", "-ub", "4-8*2",
            "-mla", "1", "-fa", "1", "-fmoe", "1", "-mmp", "0", "-w", "0", "--no-roofline", *SMALL)
found = lines_of(r)
expect("combinations", len(found), 2 + 8 + 2)
expect_in("columns", "| threads | n_ubatch | type_k |  fa | mla | mmap |            test |", found[0])
expect_in("rule", "| ------: | -------: | -----: | --: | --: | ---: | --------------: |", found[1])
match("last", r"\| deepseek2 3M F16 +\|.*\|       2 \|        8 \|   q8_0 \|   1 \|   1 \|    0 \| +pp8 \|.*",
      found[-3])

# Lines as they are pasted: what the other programs' tables show of them, in their order and widths.
PASTED = [
    (["-fa", "0,1"], "|  fa |", ["|   0 |", "|   1 |"]),
    (["-ngl", "0,10-20+10,99"], "| ngl | threads |", ["|   0 |", "|  10 |", "|  20 |", "|  99 |"]),
    (["-ngl", "99"], "| backend    | threads |            test |", ["| CPU        |       2 |             pp8 |"]),
    (["-mla", "2,3", "-fa", "1", "-fmoe", "1", "-amb", "512"], "|  fa | mla |   amb |",
     ["|   1 |   2 |   512 |", "|   1 |   3 |   512 |"]),
    (["-ncmoe", "0,10", "-t", "1,2"], "|  n_cpu_moe | threads |",
     ["|          0 |       1 |", "|          0 |       2 |", "|         10 |       1 |", "|         10 |       2 |"]),
    (["-nkvo", "0,1"], "|       nkvo |", ["|          0 |", "|          1 |"]),
    (["-nkvo"], "|       nkvo |", ["|          1 |"]),
    (["-sm", "none", "-mg", "1", "-b", "16-32+16"], "| n_batch |   main_gpu |     sm |",
     ["|      16 |          1 |   none |", "|      32 |          1 |   none |"]),
    (["-ts", "1/1,3;1", "-dev", "none"], "| dev          | ts           |",
     ["| none         | 1.00/1.00    |", "| none         | 3.00/1.00    |"]),
    (["-C", "0x1,0x3", "--cpu-strict", "0,1"], "| threads | cpu_mask   | cpu_strict |",
     ["|       1 | 0x1        |          0 |", "|       1 | 0x1        |          1 |",
      "|       2 | 0x3        |          0 |", "|       2 | 0x3        |          1 |"]),
    (["-rtr", "auto", "-thp", "1", "-gr", "0,1", "-ser", "6,1", "-ger", "1", "-muge", "1", "-mqkv", "1", "-no-fug", "0",
      "-no-ooae", "1", "-sas", "1", "-rcache", "1", "--max-gpu", "2", "--print-overrides", "1", "--defer-experts",
      "-cuda", "fusion=0", "--fit", "0", "--fit-margin", "512", "--numa", "distribute"],
     "| backend    | threads |            test |", ["| CPU        |"]),
    (["-lm", "none", "-fitt", "1024", "-fitc", "4096", "-embd", "0", "-nopo", "0,1", "--no-host", "0", "--poll", "50,100",
      "--prio", "2", "--delay", "0", "--offline", "-dio", "0", "--moe-cache", "off", "--n-gen-warmup", "2", "-v",
      "-ot", "exps=CPU;attn=CPU", "--n-cpu-moe", "0"],
     "| backend    | threads |            test |", ["| CPU        |"]),
    (["-tgb", "1,2;2,1"], "| threads |", ["|       2 |", "|       1 |"]),
    (["-rtr", "0", "-ctv", "q8_0"], "| type_v | rtr |", ["|   q8_0 |   0 |"]),
]
for args, columns, cells in PASTED:
    more = [] if {"-t", "-C", "-tgb"} & set(args) else ["-t", "2"]
    r = succeed("ferry-bench", "-m", DEMO, "-p", "8", "-n", "0", "-r", "1", "--no-roofline", "--log-disable", *more, *args)
    found = lines_of(r)
    expect_in(" ".join(args), columns, found[0])
    expect(" ".join(args) + " (rows)", len(found) - 4, len(cells))
    for line, cell in zip(found[2:], cells):
        expect_in(" ".join(args), cell, line)
        expect(" ".join(args) + " (width)", len(line), len(found[0]))

# The second format goes to standard error; another table has the same rows.
r = succeed("ferry-bench", "-m", DEMO, "-p", "8", "-n", "4", "-r", "1", "-oe", "jsonl", *SMALL)
expect("-oe", [json.loads(line)["test"] for line in r.err.decode().splitlines()], ["pp8", "tg4"])
expect("-oe (table)", len(lines_of(r)), 2 + 2 + 3)
r = succeed("ferry-bench", "--help")
for words in ("-t, --threads N,...", "-ts, --tensor-split A/B/...,...", "-fa, --flash-attn [on|off|auto,...]", "N,... stands for",
              "(default: 512)", "-r, --repetitions N             How often a test is timed (default: 5)"):
    expect_in("--help", words, r.out.decode())
expect("--list-devices", succeed("ferry-bench", "--list-devices", "--device", "none").out, b"Available devices:\n")
r = succeed("ferry-bench", "-m", DEMO, "-p", "0", "-n", "4", "-d", "100", "--fill-depth", "fast", "-ub", "16", "-r", "1",
            "--no-roofline", "--progress", *SMALL)
match("fast depth", r".*\|       16 \|      tg4 @ d100 \| +\d+\.\d\d ± 0\.00 \|", lines_of(r)[2])
expect_in("--progress", b"tg4 @ d100: 1 of 1", r.err)

# Loading, beside reading alone.
r = succeed("ferry-bench", "--load", "-m", DEMO, "-r", "2", *SMALL)
found = lines_of(r)
match("model", r".*kjv-moe-q8_0\.gguf: [\d.]+ MiB, 2 threads", found[1])
expect("head", found[3], "| from       | reading GB/s | memory GB/s | loading s | mapped GB | loading GB/s | of reading | memory |"
       "   copy | repack | await  | full   |")
expect("rows", len(found), 5 + 8)
for i, source in enumerate(["storage   ", "page cache"] * 4):
    match(source, r"\| " + source + r" \| +\d+\.\d\d \| +(\d+\.\d\d|not ready) \|( +\d+\.\d\d \|){3}( +(\d+ %|-) \|){6}",
          found[5 + i])
refuse("ferry-bench", ["-m"], "--load", "-r", "1")
refuse("ferry-bench", ["not-there.gguf"], "--load", "-m", temp("not-there.gguf"))

# ---- ferry-bench: formats
# The columns of the other programs' databases, in their order, with their SQL types.
THEIRS = [("build_commit", "text"), ("build_number", "integer"), ("cpu_info", "text"), ("gpu_info", "text"),
          ("backends", "text"), ("model_filename", "text"), ("model_type", "text"), ("model_size", "integer"),
          ("model_n_params", "integer"), ("n_batch", "integer"), ("n_ubatch", "integer"), ("n_threads", "integer"),
          ("cpu_mask", "text"), ("cpu_strict", "integer"), ("poll", "integer"), ("type_k", "text"), ("type_v", "text"),
          ("n_gpu_layers", "integer"), ("n_cpu_moe", "integer"), ("split_mode", "text"), ("main_gpu", "integer"),
          ("no_kv_offload", "integer"), ("flash_attn", "integer"), ("devices", "text"), ("tensor_split", "text"),
          ("tensor_buft_overrides", "text"), ("use_mmap", "integer"), ("embeddings", "integer"),
          ("no_op_offload", "integer"), ("no_host", "integer"), ("n_prompt", "integer"), ("n_gen", "integer"),
          ("n_depth", "integer"), ("test_time", "text"), ("avg_ns", "integer"), ("stddev_ns", "integer"),
          ("avg_ts", "real"), ("stddev_ts", "real")]
FIELDS = ["n_prompt", "n_gen", "n_depth", "n_threads", "type_k", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ts",
          "model_size", "model_n_params"]
ODD = write("it's \"odd\", \xff.gguf".encode("latin-1").decode("utf-8", "surrogateescape"), open(V3, "rb").read())


def bench(form, *more):
    r = succeed("ferry-bench", "-m", ODD, "-p", "8", "-n", "4", "-gp", "8,4", "-r", "3", "-o", form, *SMALL, *more)
    return r.out


def check_result(what, t, test, n_prompt, n_gen, n_depth):
    expect(what + " (test)", t["test"], test)
    for name, value in (("n_prompt", n_prompt), ("n_gen", n_gen), ("n_depth", n_depth), ("n_threads", 2),
                        ("n_ubatch", 512), ("n_batch", 2048)):
        expect("%s (%s)" % (what, name), int(t[name]), value)
    expect(what + " (type_k)", t["type_k"], "f16")
    if not 0.9 < int(t["model_size"]) / os.path.getsize(V3) < 1:
        wrong("%s: found a model of %s bytes" % (what, t["model_size"]))
    ts, ns = t["samples_ts"], t["samples_ns"]
    if isinstance(ts, str):
        ts, ns = [float(x) for x in ts.split(",")], [int(x) for x in ns.split(",")]
    expect(what + " (samples)", (len(ts), len(ns)), (3, 3))
    mean = sum(ts) / 3
    deviation = math.sqrt(sum((x - mean) ** 2 for x in ts) / 2)
    for name, value in (("avg_ts", mean), ("stddev_ts", deviation), ("avg_ns", sum(ns) / 3)):
        if not abs(float(t[name]) - value) <= 1e-4 * mean + 1e-5 * abs(value) + 1:
            wrong("%s: found %s %s, expected %s" % (what, name, t[name], value))
    for x, y in zip(ts, ns):
        if not abs(x * y * 1e-9 / (n_prompt + n_gen) - 1) < 1e-3:
            wrong("%s: %r t/s do not go with %r ns" % (what, x, y))
    if not 0 < float(t["roofline"]):
        wrong("%s: found roofline %r" % (what, t["roofline"]))


def check_all(form, results):
    expect(form + " (results)", len(results), 3)
    for t, wanted in zip(results, (("pp8", 8, 0, 0), ("tg4", 0, 4, 0), ("tg4@pp8", 0, 4, 8))):
        for name in FIELDS:
            expect_in(form, name, t)
        check_result(form, t, *wanted)


check_all("json", json.loads(bench("json")))
check_all("jsonl", [json.loads(line) for line in bench("jsonl").splitlines()])
text = bench("csv").decode("utf-8", "surrogateescape")
check_all("csv", list(csv.DictReader(io.StringIO(text))))
expect("csv (name)", next(csv.DictReader(io.StringIO(text)))["model_filename"], ODD)
db = sqlite3.connect(":memory:")
db.row_factory = sqlite3.Row
db.executescript(bench("sql").decode("utf-8", "replace"))
check_all("sql", [dict(x) for x in db.execute("SELECT * FROM test")])
expect("sql (another name)", db.execute("SELECT count(*) FROM llama_bench").fetchone()[0], 3)
row = db.execute("SELECT %s FROM test" % ", ".join("typeof(%s)" % name for name, _ in THEIRS)).fetchone()
expect("sql (all types)", list(zip((name for name, _ in THEIRS), row)), THEIRS)
expect("csv (columns)", text.splitlines()[0].split(",")[:len(THEIRS)], [name for name, _ in THEIRS])
j = json.loads(bench("json", "-ot", "exps=CPU;attn=CPU", "-nkvo", "1", "-ts", "3/1", "-fa", "on", "-mmp", "0"))[0]
for name, value in (("no_kv_offload", True), ("use_mmap", False), ("cpu_strict", False), ("embeddings", False),
                    ("flash_attn", 1), ("tensor_split", "3.00/1.00"), ("tensor_buft_overrides", "exps=CPU;attn=CPU"),
                    ("split_mode", "layer"), ("n_gpu_layers", 0), ("backends", "CPU"), ("gpu_info", ""), ("mla_attn", 3),
                    ("attn_max_batch", 256), ("devices", "auto"), ("cpu_mask", "0x0"), ("poll", 50)):
    expect("json (%s)" % name, j[name], value)
expect("sql (types)", [x[0] for x in db.execute("SELECT typeof(avg_ts) || typeof(n_prompt) || typeof(test) FROM test")],
       ["realintegertext"] * 3)
r = succeed("ferry-bench", "-m", DEMO, "-p", "8", "-n", "4", "-r", "1", "--json", temp("bench.json"), *SMALL)
expect("--json", [t["test"] for t in json.load(open(temp("bench.json")))], ["pp8", "tg4"])
expect("--json (table)", lines_of(r)[0][:10], "| model   ")
expect("without roofline", json.loads(bench("json", "--no-roofline"))[0]["roofline"], None)

# ---- ferry-bench: kernels
r = succeed("ferry-bench", "--kernels", "Q4_K", "iq4_xs_r8", *SMALL)
table = [line for line in lines_of(r) if line.startswith("|")]
expect_in("kernels", "| type           | kernel                   | tokens |    GB/s | of read |    GOPS | of int8 | x scalar |",
          table[0])
names = [match("kernels", r"\| (\S+) +\| (\S+) +\| +(1|512) \| +[\d.]+ \| +\d+ % \| +[\d.]+ \| +[\d.]+ % \| +[\d.]+ \|",
               line) for line in table[2:]]
found = [(m[1], m[3]) for m in names if m]
for wanted in (("q4_K", "1"), ("q4_K", "512"), ("q4_k_r4", "1"), ("q4_k_r4", "512"), ("iq4_xs_r8", "512")):
    expect_in("kernels", wanted, found)
expect("kernels (others)", [name for name, _ in found if not name.lower().startswith(("q4_k", "iq4_xs_r8"))], [])

# ---- ferry-bench: refusals
refuse("ferry-bench", ["--model"])
refuse("ferry-bench", ["nothing.gguf"], "-m", "nothing.gguf")
refuse("ferry-bench", ["-p: found '1,x'"], "-m", DEMO, "-p", "1,x")
refuse("ferry-bench", ["none"], "-m", DEMO, "-p", "0", "-n", "0")
for args, words in ((["-t", "1-x"], ["-t: found '1-x'", "512-2048+512"]), (["-ub", "0"], ["-ub: found '0'", "from 1"]),
                    (["-ctk", "f16,,q8_0"], ["-ctk", "empty"]), (["-ctk", "q8_KV"], ["-ctk: found 'q8_KV'", "q8_0"]),
                    (["-tgb", "8"], ["-tgb: found '8'", "8,16"]), (["-tgb", "8,x"], ["-tgb: found 'x'"]),
                    (["-sm", "layer,row,diagonal"], ["-sm: found 'diagonal'", "none, layer"]),
                    (["-mla", "0,4"], ["-mla: found '4'", "0 to 3"]),
                    (["-ngl", "1-"], ["-ngl: found '1-'"]),
                    (["-p", "1-100000"], ["fewer"]), (["-pg", "1,2,3"], ["-pg: found '1,2,3'", "two numbers"]),
                    (["-amb", "-5"], ["-amb: found '-5'"]), (["-b", "9999999999"], ["-b", "9999999999"]),
                    (["-t", "1-4096", "-ub", "1-64"], ["combinations"])):
    refuse("ferry-bench", words, "-m", DEMO, *args)
for args, words in ((["-r", "0"], ["from 1"]), (["-rpc", "a:1"], ["one machine"]), (["-hf", "a/b"], ["does not download"]),
                    (["-o", "table"], ["one of md, csv"]), (["-d"], ["-d: found nothing"]), (["-nd", "1"], ["-nd"])):
    refuse("ferry-bench", words, "-m", DEMO, *args, code=2)
refuse("ferry-bench", ["-t: found 2 values", "--kernels"], "--kernels", "q4_K", "-t", "1,2")
refuse("ferry-bench", ["unexpected argument"], DEMO)
refuse("ferry-bench", ["q9_K"], "--kernels", "q9_K")
refuse("ferry-bench", ["one of md, csv, json, jsonl, sql"], "-m", DEMO, "-o", "xml", code=2)
refuse("ferry-bench", ["not a GGUF"], "-m", write("no.gguf", b"hello hello hello hello hello"), *SMALL)

# ---- ferry-sweep-bench
SWEEP_HEAD = ["|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |",
              "|-------|--------|--------|----------|----------|----------|----------|"]
SWEEP_ROW = r"\| {}(\d+) \| {}(\d+) \| {}(\d+) \| +(\d+\.\d{{3}}) \| +(\d+\.\d\d) \| +(\d+\.\d{{3}}) \| +(\d+\.\d\d) \|"


def sweep_rows(what, run, pp, tg, depths):
    found = lines_of(run)
    head = match(what, r"main: n_kv_max = (\d+), n_batch = (\d+), n_ubatch = (\d+), flash_attn = 1, n_gpu_layers = \d+, "
                 r"n_threads = 2, n_threads_batch = 2", found[1])
    expect(what + " (blank lines)", (found[0], found[2]), ("", ""))
    expect(what + " (head)", found[3:5], SWEEP_HEAD)
    expect(what + " (rows)", len(found) - 5, len(depths))
    rows = []
    for line, depth in zip(found[5:], depths):
        m = match(what, SWEEP_ROW.format(" *", " *", " *"), line)
        expect(what + " (width)", len(line), len(SWEEP_HEAD[0]))
        if m:
            expect(what, (int(m[1]), int(m[2]), int(m[3])), (pp, tg, depth))
            rows.append([float(x) for x in m.groups()])
    return head, rows


sweep = succeed("ferry-sweep-bench", "-m", DEMO, "-c", "128", "-ub", "32", "--json", temp("sweep.json"), *SMALL)
head, rows = sweep_rows("sweep", sweep, 32, 8, [0, 32, 64, 96])
expect("sweep (settings)", head and head.groups(), ("128", "2048", "32"))
j = json.load(open(temp("sweep.json")))
expect("sweep.json", [(x["pp"], x["tg"], x["n_kv"]) for x in j["rows"]], [(32, 8, n) for n in (0, 32, 64, 96)])
for a, b in zip(rows, j["rows"]):
    expect("sweep.json (speeds)", ["%.2f" % b["speed_pp"], "%.2f" % b["speed_tg"]], ["%.2f" % a[4], "%.2f" % a[6]])
expect("sweep.json (model)", (j["model_filename"], j["n_kv_max"], j["n_ubatch"]), (DEMO, 128, 32))

r = succeed("ferry-sweep-bench", "-m", DEMO, "-c", "100", "-ub", "32", "-n", "5", "--sweep-stride", "2", "-nrep", "2",
            "-wb", "-fa", "on", *SMALL)
sweep_rows("stride", r, 32, 5, [0, 64])
r = succeed("ferry-sweep-bench", "-m", DEMO, "-c", "64", "-ub", "32", "--output-format", "jsonl", *SMALL)
rows = [json.loads(line) for line in lines_of(r)]
expect("jsonl", [(x["n_kv_max"], x["pp"], x["tg"], x["n_kv"]) for x in rows], [(64, 32, 8, 0), (64, 32, 8, 32)])
r = succeed("ferry-sweep-bench", "-m", DEMO, "-c", "64", "-ub", "32", "--sweep-memory", "--roofline", *SMALL)
found = lines_of(r)
expect("more columns", found[3], SWEEP_HEAD[0] + "    RSS HWM | VRAM delta | of int8 | of read |")
for line in found[5:]:
    match("more columns", SWEEP_ROW.format(" *", " *", " *") + r" +\d+\.\d \|        n/a \| +\d+ % \| +\d+ % \|", line)
r = succeed("ferry-sweep-bench", "-m", DEMO, "-c", "160", "-ub", "32", "-n", "4", "--sweep-stride", "4", "--fill-depth",
            "fast", *SMALL)
sweep_rows("fast stride", r, 32, 4, [0, 128])
r = succeed("ferry-sweep-bench", "-m", DEMO, "-c", "64", "-ub", "32", "-b", "64", "-mla", "3", "-fa", "-amb", "512", "-fmoe",
            "-rtr", "-ctk", "q8_0", "-ngl", "63", "-ot", "exps=CPU", "--no-mmap", "-wb", "--threads", "2", "-ts", "24,24",
            "--minilog", "-gr", "--parallel", "1")
head, _ = sweep_rows("pasted", r, 32, 8, [0, 32])
refuse("ferry-sweep-bench", ["--model"])
refuse("ferry-sweep-bench", ["-c: found 16", "at least 32"], "-m", DEMO, "-c", "16", "-ub", "32", *SMALL)
refuse("ferry-sweep-bench", ["--plot"], "table.txt")

# ---- pictures
mine = write("mine.txt", sweep.out)
theirs = write("theirs.log", b"noise\n" + "\n".join(SWEEP_HEAD).encode() +
               b"\n|   512 |    128 |      0 |    0.100 |  5120.00 |    1.000 |   128.00 |\nmore noise\n"
               b"|   512 |    128 |    512 |    0.200 |  2560.00 |    2.000 |    64.00 |\n")
r = succeed("ferry-sweep-bench", "--plot", temp("both.svg"), mine, theirs) if os.system(
    "pkg-config --exists cairo") == 0 else None
if r:
    expect("plot (output)", r.out, b"")
    root = xml.etree.ElementTree.parse(temp("both.svg")).getroot()
    expect("svg", root.tag, "{http://www.w3.org/2000/svg}svg")
    svg = open(temp("both.svg")).read()
    strokes = set(re.findall(r"stroke[:=]\s*\"?(rgb\([^)]*\))", svg))
    if len(strokes) < 4:  # two runs, grid, axis
        wrong("svg: found the strokes %r, expected a colour for each run" % strokes)
    succeed("ferry-sweep-bench", "-m", DEMO, "-c", "64", "-ub", "32", "--plot", temp("all.png"), mine, theirs, *SMALL)
    png = open(temp("all.png"), "rb").read()
    expect("png", (png[:8], int.from_bytes(png[16:20], "big")), (b"\x89PNG\r\n\x1a\n", 2160))
    refuse("ferry-sweep-bench", [".svg or .png"], "--plot", temp("x.pdf"), mine)
    refuse("ferry-sweep-bench", ["no row of a sweep table"], "--plot", temp("x.svg"), DEMO)
    expect("nothing is left", os.path.exists(temp("x.svg")), False)

# ---- ferry-batched-bench
r = succeed("ferry-batched-bench", "-m", DEMO, "-npp", "8,16", "-ntg", "4", "-npl", "1,3", "-c", "60", "--json",
            temp("batched.json"), *SMALL)
found = lines_of(r)
expect("batched (head)", found[3:5],
       ["|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |",
        "|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|"])
wanted = [(8, 4, 1, 12), (8, 4, 3, 36), (16, 4, 1, 20), (16, 4, 3, 60)]
expect("batched (rows)", len(found) - 5, len(wanted))
for line, w in zip(found[5:], wanted):
    m = match("batched", r"\| +(\d+) \| +(\d+) \| +(\d+) \| +(\d+) \|( +\d+\.\d{3} \| +\d+\.\d\d \|){3}", line)
    expect("batched", m and tuple(int(x) for x in m.groups()[:4]), w)
j = json.load(open(temp("batched.json")))
expect("batched.json", [(x["pp"], x["tg"], x["pl"], x["n_kv"]) for x in j["rows"]], wanted)
for x in j["rows"]:
    for speed, seconds, n in (("speed_pp", "t_pp", x["pp"] * x["pl"]), ("speed", "t", x["n_kv"])):
        if not abs(x[speed] * x[seconds] / n - 1) < 1e-6:
            wrong("batched.json: found %r, expected speeds that go with times" % x)
r = succeed("ferry-batched-bench", "-m", DEMO, "-npp", "8,16", "-ntg", "4", "-npl", "3", "-c", "40", "--output-format",
            "jsonl", *SMALL)
expect("batched (too long)", [json.loads(x)["n_kv"] for x in lines_of(r)], [36])
r = succeed("ferry-batched-bench", "-m", DEMO, "-npp", "16", "-ntg", "4", "-npl", "1,5", "-pps", "-c", "36", "--roofline", *SMALL)
found = lines_of(r)
match("shared", r"main: n_kv_max = 36, n_batch = 2048, n_ubatch = 512, flash_attn = 1, is_pp_shared = 1, n_gpu_layers = 0, "
      r"n_threads = 2, n_threads_batch = 2", found[1])
match("shared", r"\|    16 \|      4 \|    5 \|     36 \|( +\d+\.\d{3} \| +\d+\.\d\d \|){3} +\d+ % \| +\d+ % \|", found[6])
refuse("ferry-batched-bench", ["-c: found 10", "takes 640"], "-m", DEMO, "-c", "10", *SMALL)
refuse("ferry-batched-bench", ["-npl: found 'x'"], "-m", DEMO, "-npl", "x", *SMALL)
done()
