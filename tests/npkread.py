"""Reads NumPack stores from the format's description, with the rules of NumPack 0.7 and none of ours: the other half of
npkwrite.py. Every length, name and path on disk is checked before it is believed.

    read(path)      {name: logical array}, as an unmodified 0.7 reader would get them
    complaints(path)    what a directory at rest must not have: tails, stale counts, names that are not canonical
"""

import json
import os
import stat
import struct

import numpy as np

from npkwrite import DTYPES

METADATA = "metadata.npkm"
ENTRY = struct.Struct("<QQBBIQQB")


class Bad(Exception):
    """the directory breaks the format"""


def open_regular(path, relative):
    """The bytes of a regular file below `path`, no link on the way."""
    parts = relative.split("/")
    if "\0" in relative or any(p in ("", ".", "..") for p in parts):
        raise Bad(f"{relative!r} is no plain path")
    at = os.fspath(path)
    for part in parts:
        at = os.path.join(at, part)
        if stat.S_ISLNK(os.lstat(at).st_mode):
            raise Bad(f"{at} is a symbolic link")
    if not stat.S_ISREG(os.lstat(at).st_mode):
        raise Bad(f"{at} is no regular file")
    with open(at, "rb") as f:
        return f.read()


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise Bad(f"{METADATA}: byte {self.at}: {n} bytes wanted, {len(self.data) - self.at} are left")
        self.at += n
        return self.data[self.at - n:self.at]

    def unpack(self, form):
        form = form if isinstance(form, struct.Struct) else struct.Struct("<" + form)
        return form.unpack(self.take(form.size))

    def text(self):
        return self.take(self.unpack("I")[0]).decode("utf-8", "surrogateescape")


def metadata(path):
    """{name: {shape, file, mtime, size, dtype}}; an empty dict when the file is not there."""
    try:
        data = open_regular(path, METADATA)
    except FileNotFoundError:
        return {}
    c = Cursor(data)
    magic, version, total, count = c.unpack("4sIQI")
    if (magic, version) != (b"NPKB", 1):
        raise Bad(f"{METADATA}: {magic} version {version}")
    out = {}
    for _ in range(count):
        name = c.text()
        shape = c.unpack("%dQ" % c.unpack("I")[0])
        file = c.text()
        mtime, size, dtype, algorithm, level, original, compressed, blocks = c.unpack(ENTRY)
        if algorithm or level or original or compressed or blocks:
            raise Bad(f"{name!r}: compression fields are not 0")
        if dtype >= len(DTYPES) or name in out:
            raise Bad(f"{name!r}: dtype {dtype}, or twice")
        out[name] = {"shape": shape, "file": file, "mtime": mtime, "size": size, "dtype": np.dtype(DTYPES[dtype])}
    if c.at != len(data) or total != sum(e["size"] for e in out.values()):
        raise Bad(f"{METADATA}: {len(data) - c.at} bytes too many, total size {total}")
    return out


def manifest(path, file):
    m = json.loads(open_regular(path, file))
    if m["version"] != 1:
        raise Bad(f"{file}: version {m['version']}")
    return m["segments"]


def parts(path, entry):
    """[(file, bytes, rows)] of the data."""
    if not entry["file"].endswith(".npkseg"):
        rows = entry["shape"][0] if entry["shape"] else 1
        return [(entry["file"], open_regular(path, entry["file"]), rows)]
    out = []
    for s in manifest(path, entry["file"]):
        data = open_regular(path, s["file"])
        if len(data) < s["bytes"]:
            raise Bad(f"{s['file']}: {len(data)} bytes, {s['bytes']} promised")
        out.append((s["file"], data[:s["bytes"]], s["rows"]))
    return out


def row_bytes(entry):
    return int(np.prod(entry["shape"][1:], dtype=object)) * entry["dtype"].itemsize if entry["shape"] else entry["dtype"].itemsize


def live(path, name):
    """The bitmap's rows as booleans, or None when there is no bitmap."""
    file = f"deleted_{name}.npkb"
    try:
        data = open_regular(path, file)
    except FileNotFoundError:
        return None
    if len(data) < 16:
        raise Bad(f"{file}: {len(data)} bytes")
    rows, deleted = struct.unpack_from("<QQ", data)
    if len(data) != 16 + (rows + 63) // 64 * 8:
        raise Bad(f"{file}: {len(data)} bytes for {rows} rows")
    bits = np.unpackbits(np.frombuffer(data[16:], "u1"), bitorder="little").astype(bool)
    if bits[rows:].any() or int(np.count_nonzero(~bits[:rows])) != deleted:
        raise Bad(f"{file}: {deleted} deleted rows promised, {int(np.count_nonzero(~bits[:rows]))} there, or bits behind the end")
    return bits[:rows]


def read_array(path, name, entry):
    data = b"".join(p[1] for p in parts(path, entry))
    bits = live(path, name)
    rows = len(bits) if bits is not None else entry["shape"][0] if entry["shape"] else 1
    if len(data) < rows * row_bytes(entry):
        raise Bad(f"{name!r}: {len(data)} bytes of data, {rows} rows of {row_bytes(entry)}")
    flat = np.frombuffer(data[:rows * row_bytes(entry)], entry["dtype"])
    array = flat.reshape((rows, *entry["shape"][1:]) if entry["shape"] else ())
    return array[bits] if bits is not None else array.copy()


def read(path):
    return {name: read_array(path, name, e) for name, e in metadata(path).items()}


def complaints(path):
    """After a clean unmount or `sync`: nothing that would make any release of NumPack stumble."""
    out, used = [], set()
    for name, e in metadata(path).items():
        bits = live(path, name)
        if bits is not None and len(bits) != e["shape"][0]:
            out.append(f"{name!r}: {len(bits)} bits, {e['shape'][0]} rows")
        if e["size"] != int(np.prod(e["shape"], dtype=object)) * e["dtype"].itemsize:
            out.append(f"{name!r}: size {e['size']} of shape {e['shape']}")
        found = parts(path, e)
        if sum(p[2] for p in found) != (e["shape"][0] if e["shape"] else 1):
            out.append(f"{name!r}: segments of {[p[2] for p in found]} rows, shape {e['shape']}")
        for file, _, rows in found:
            size = os.stat(os.path.join(path, file)).st_size
            if size != rows * row_bytes(e):
                out.append(f"{file}: {size} bytes, {rows} rows of {row_bytes(e)}: a 0.5 append would go wrong")
            if file in used:
                out.append(f"{file} belongs to two arrays")
            used.add(file)
        if e["file"].endswith(".npkseg"):
            used.add(e["file"])
            text = json.dumps({"version": 1, "segments": manifest(path, e["file"])}, indent=2, ensure_ascii=False)
            if open_regular(path, e["file"]).decode() != text:
                out.append(f"{e['file']}: not the layout that NumPack writes")
        elif e["file"] != f"data_{name}.npkd":
            out.append(f"{name!r}: its file is {e['file']}, 0.5 would open data_{name}.npkd")
        used.add(f"deleted_{name}.npkb")
    names = set()
    for base, _, files in os.walk(path):
        names |= {os.path.relpath(os.path.join(base, f), path) for f in files}
    left = [n for n in names - used if n.endswith((".npkd", ".npkb", ".npkseg", ".tmp"))]
    return out + [f"{n}: nobody's" for n in sorted(left)]
