"""Writes NumPack stores from the format's description, without the library: an independent second opinion, and a quick way
to stores that the library would take long to make or refuses to make.

    write_store(path, {"x": array, "y": Spec(array, deleted=[1, 5])})
"""

import dataclasses
import json
import math
import os
import pathlib
import struct
import time

import numpy as np

DTYPES = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
          "complex64", "complex128"]
CODES = {np.dtype(name): code for code, name in enumerate(DTYPES)}


@dataclasses.dataclass
class Spec:
    """One array as it shall lie on disk. `array` holds the physical rows, `deleted` their indexes that are hidden."""

    array: np.ndarray
    deleted: object = None          # a list of physical rows; None: no bitmap at all
    segment_rows: int = 0           # rows per segment; 0: one data file
    mtime_us: int = 0               # 0: now
    data_file: object = None        # the name in the entry, str or bytes; None: the canonical one
    dtype_code: object = None
    compression: int = 0
    write_data: bool = True
    headerless: bool = False        # the bitmap's old form

    def logical(self):
        if not self.deleted:
            return np.ascontiguousarray(self.array)
        return np.ascontiguousarray(np.delete(self.array, self.deleted, axis=0))


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode("utf-8")


def entry(name, spec):
    name = as_bytes(name)
    data_file = spec.data_file
    if data_file is None:
        data_file = b"data_" + name + (b".npkseg" if spec.segment_rows else b".npkd")
    data_file = as_bytes(data_file)
    shape = spec.array.shape
    code = CODES[spec.array.dtype] if spec.dtype_code is None else spec.dtype_code
    out = struct.pack("<I", len(name)) + name + struct.pack("<I", len(shape))
    out += b"".join(struct.pack("<Q", n) for n in shape)
    out += struct.pack("<I", len(data_file)) + data_file
    out += struct.pack("<QQ", spec.mtime_us or time.time_ns() // 1000, spec.array.nbytes)
    out += struct.pack("<BBIQQB", code, spec.compression, 0, 0, 0, 0)
    return out, spec.array.nbytes


def metadata(specs):
    parts = [entry(name, spec) for name, spec in specs.items()]
    return b"NPKB" + struct.pack("<IQI", 1, sum(n for _, n in parts), len(parts)) + b"".join(p for p, _ in parts)


def bitmap(rows, deleted, headerless=False):
    words = np.zeros(-(-rows // 64) * 64, dtype=bool)
    words[:rows] = True
    words[list(deleted)] = False
    bits = np.packbits(words, bitorder="little").tobytes()
    return bits if headerless else struct.pack("<QQ", rows, len(set(deleted))) + bits


def replace_file(path, content):
    """As a careful writer does: a watching reader sees the old file or the new one."""
    temp = os.fsencode(path) + b".tmp.1_1_1"
    with open(temp, "wb") as f:
        f.write(content)
    os.rename(temp, path)


def write_array(path, name, spec):
    base = os.fsencode(path) + b"/"
    name = as_bytes(name)
    array = np.ascontiguousarray(spec.array)
    if spec.write_data and spec.segment_rows:
        row_bytes = array.itemsize * math.prod(array.shape[1:])
        os.makedirs(base + b"data_" + name + b"_segments", exist_ok=True)
        segments = []
        for i, first in enumerate(range(0, array.shape[0], spec.segment_rows)):
            part = array[first:first + spec.segment_rows]
            file = b"data_" + name + b"_segments/seg_%06d.npkd" % i
            with open(base + file, "wb") as f:
                f.write(part.tobytes())
            segments.append({"file": file.decode(), "rows": part.shape[0], "bytes": part.shape[0] * row_bytes})
        with open(base + b"data_" + name + b".npkseg", "w", encoding="utf-8") as f:
            json.dump({"version": 1, "segments": segments}, f, indent=2, ensure_ascii=False)
    elif spec.write_data:
        with open(base + b"data_" + name + b".npkd", "wb") as f:
            f.write(array.tobytes())
    if spec.deleted is not None:
        replace_file(base + b"deleted_" + name + b".npkb", bitmap(array.shape[0], spec.deleted, spec.headerless))


def write_store(path, arrays):
    """Makes the directory `path` and returns it with the specs, so that a test can ask spec.logical()."""
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    specs = {name: (a if isinstance(a, Spec) else Spec(np.asarray(a))) for name, a in arrays.items()}
    for name, spec in specs.items():
        write_array(path, name, spec)
    replace_file(path / "metadata.npkm", metadata(specs))
    return path, specs
