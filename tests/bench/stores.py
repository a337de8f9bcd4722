"""The stores that the benchmarks read, and the same arrays as plain .npy files beside them."""

import os
import pathlib
import shutil
import struct
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import npkwrite  # noqa: E402

COLUMNS = 10
DELETED = (0, 10, 50)   # per cent; arrays x0, x10, x50


def bitmap(live):
    """deleted_*.npkb. npkwrite's way through a Python set would take minutes for 10^8 rows."""
    words = np.zeros(-(-len(live) // 64) * 64, dtype=bool)
    words[:len(live)] = live
    return struct.pack("<QQ", len(live), len(live) - int(np.count_nonzero(live))) + \
        np.packbits(words, bitorder="little").tobytes()


class Sized:
    """A store of `rows` x 10 float32 in three arrays that share one data file, with none, 10 % and 50 % deleted."""

    def __init__(self, base, rows, sparse=False, deleted=DELETED):
        self.path, self.rows, self.deleted = base / f"s{rows}.npk", rows, deleted
        self.upstream_path = base / f"u{rows}.npk"
        self.path.mkdir(parents=True)
        rng = np.random.default_rng(rows)
        shared = self.path / "data_x0.npkd"
        if sparse:
            with open(shared, "wb") as f:
                f.truncate(rows * COLUMNS * 4)
            shape = np.broadcast_to(np.float32(0), (rows, COLUMNS))
        else:
            shape = rng.random((rows, COLUMNS), dtype=np.float32)
            shape.tofile(shared)
        self.logical, self.npy, self.live = {}, {}, {}
        for percent in deleted:
            name = f"x{percent}"
            if percent:
                os.link(shared, self.path / f"data_{name}.npkd")
                live = rng.random(rows) >= percent / 100
                (self.path / f"deleted_{name}.npkb").write_bytes(bitmap(live))
                self.live[name] = np.flatnonzero(live)
            if not sparse:
                self.logical[name] = shape[live] if percent else shape
                self.npy[name] = base / f"s{rows}_{name}.npy"
                np.save(self.npy[name], self.logical[name])
        specs = {f"x{p}": npkwrite.Spec(shape) for p in deleted}
        npkwrite.replace_file(self.path / "metadata.npkm", npkwrite.metadata(specs))
        if not sparse:  # the real NumPack may write to what it opens: it gets its own, of links and copies
            self.upstream_path.mkdir()
            for p in self.path.iterdir():
                if p.suffix == ".npkd":
                    os.link(p, self.upstream_path / p.name)
                else:
                    shutil.copy(p, self.upstream_path)

    def count(self, name):
        return self.rows if name == "x0" else len(self.live[name])

    def remove(self):
        self.logical.clear()
        shutil.rmtree(self.path)
        shutil.rmtree(self.upstream_path, ignore_errors=True)
        for p in self.npy.values():
            p.unlink()


def many(base, n):
    """A store of n small arrays, and a directory with the same as plain .npy files."""
    rng = np.random.default_rng(n)
    arrays = {f"array{i:05d}": rng.random((4, COLUMNS), dtype=np.float32) for i in range(n)}
    path, _ = npkwrite.write_store(base / "many.npk", arrays)
    plain = base / "many"
    plain.mkdir()
    for name, array in arrays.items():
        np.save(plain / f"{name}.npy", array)
    return path, plain
