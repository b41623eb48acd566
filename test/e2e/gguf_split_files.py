"""Cuts a GGUF file into a split set, as the ecosystem's tools write them. A reader and writer of its
own: what ferry makes of the parts is then its own doing."""
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
ALIGNMENT = 32


class _Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values[0]

    def text(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at]

    def value(self, kind):
        """Moves behind a value."""
        if kind == 8:
            self.text()
        elif kind == 9:
            inner, n = self.take("I"), self.take("Q")
            for _ in range(n):
                self.value(inner)
        else:
            self.take(SCALARS[kind])


def _text(b):
    return struct.pack("<Q", len(b)) + b


def _pad(b):
    return b + bytes(-len(b) % ALIGNMENT)


def read(path):
    """(keys as one block of bytes, their number, tensors as (name, dims, type, data))"""
    data = open(path, "rb").read()
    r = _Reader(data)
    assert r.take("4s") == b"GGUF" and r.take("I") == 3
    n_tensors, n_keys = r.take("Q"), r.take("Q")
    start = r.at
    for _ in range(n_keys):
        r.text()
        r.value(r.take("I"))
    keys = data[start:r.at]
    infos = []
    for _ in range(n_tensors):
        name, n_dims = r.text(), r.take("I")
        dims = [r.take("Q") for _ in range(n_dims)]
        infos.append((name, dims, r.take("I"), r.take("Q")))
    base = r.at + -r.at % ALIGNMENT
    ends = sorted([i[3] for i in infos] + [len(data) - base])
    tensors = []
    for name, dims, kind, offset in infos:
        end = ends[ends.index(offset) + 1]
        tensors.append((name, dims, kind, data[base + offset:base + end]))
    return keys, n_keys, tensors


def write_part(path, keys, n_keys, tensors, no, count, total):
    """One file of the set; keys belong to the first."""
    extra = b""
    for name, kind, form, value in ((b"split.no", 2, "H", no), (b"split.count", 2, "H", count),
                                    (b"split.tensors.count", 5, "i", total)):
        extra += _text(name) + struct.pack("<I" + form, kind, value)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), n_keys + 3) + keys + extra
    body = b""
    for name, dims, kind, data in tensors:
        head += _text(name) + struct.pack("<I%dQIQ" % len(dims), len(dims), *dims, kind, len(body))
        body += _pad(data)
    with open(path, "wb") as f:
        f.write(_pad(head) + body)


def split(path, out, count):
    """Writes OUT-00001-of-0000N.gguf and so on; returns their names."""
    keys, n_keys, tensors = read(path)
    names = ["%s-%05d-of-%05d.gguf" % (out, i + 1, count) for i in range(count)]
    for i, name in enumerate(names):
        part = tensors[len(tensors) * i // count:len(tensors) * (i + 1) // count]
        write_part(name, keys if i == 0 else b"", n_keys if i == 0 else 0, part, i, count,
                   len(tensors))
    return names
