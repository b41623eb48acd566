#!/usr/bin/env python3
"""Writes runtime/token/template_unicode.def from Python's Unicode database (run it with Python 3.11)."""
import sys
import unicodedata

ALL = [cp for cp in range(0x80, 0x110000) if not 0xD800 <= cp < 0xE000]


def ranges(pred):
    out = []
    for cp in range(0x80, 0x110000):
        if pred(cp):
            if out and out[-1][1] == cp - 1:
                out[-1][1] = cp
            else:
                out.append([cp, cp])
    return out


def case_rows(fn):
    """Rows (first, last, stride, delta): every stride-th character from first to last moves by delta."""
    rows = []
    for cp in ALL:
        to = fn(chr(cp))
        if len(to) != 1 or ord(to) == cp:
            continue
        delta = ord(to) - cp
        if rows and rows[-1][3] == delta:
            first, last, stride, _ = rows[-1]
            gap = cp - last
            if gap in (1, 2) and (first == last or gap == stride):
                rows[-1] = (first, cp, gap, delta)
                continue
        rows.append((cp, cp, 1, delta))
    return rows


def table(name, rows, fmt):
    print(f"#ifdef TPL_{name}")
    line = ""
    for row in rows:
        item = fmt(row)
        if len(line) + len(item) > 96:
            print(line.rstrip())
            line = ""
        line += item + " "
    if line:
        print(line.rstrip())
    print(f"#undef TPL_{name}\n#endif")


def special_upper():
    for cp in ALL:
        up = chr(cp).upper()
        if len(up) > 1:
            yield cp, *[ord(c) for c in up], *[0] * (3 - len(up))


def main():
    print(f"/* Written by tools/gen_template_unicode.py: Unicode {unicodedata.unidata_version}. "
          "Characters below 0x80 are not listed. */")
    span = lambda r: f"R(0x{r[0]:X}, 0x{r[1]:X})"
    table("ALPHA", ranges(lambda c: chr(c).isalpha()), span)
    table("DECIMAL", ranges(lambda c: chr(c).isdecimal()), span)
    table("UNPRINTABLE", ranges(lambda c: not chr(c).isprintable()), span)
    move = lambda r: f"C(0x{r[0]:X}, 0x{r[1]:X}, {r[2]}, {r[3]})"
    table("LOWER", case_rows(str.lower), move)
    table("UPPER", case_rows(str.upper), move)
    table("SPECIAL", special_upper(), lambda r: "S(" + ", ".join(f"0x{c:X}" for c in r) + ")")


sys.exit(main())
