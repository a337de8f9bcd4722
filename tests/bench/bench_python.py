"""The Python package against the real NumPack, call by call, in one run: the same program in two processes that take turns.

    bench_python.py --build build/release --out build/bench [--quick] [--only GROUP]

Groups: call, read, write, batch, search. As bench.py: a row shows the median of the rounds' ratios, their least and greatest. The group
call has what a call costs before anything is done: of Python, of ctypes, of the extension module. Rows "libnumpack alone" are
the library's part of the row above, called with its arguments ready, in the same process; their difference is Python's. The
table goes to stdout, DIR gets bench_python.json.
"""

import json
import os
import pathlib
import statistics
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
from measure import Table, Upstream, measure, parse, run_groups, workplace  # noqa: E402

GROUPS = ("call", "read", "write", "batch", "search")
OURS = "numpackfs"


class Bench:
    def __init__(self, base, quick):
        self.base, self.quick, self.rounds, self.table = base, quick, 3 if quick else 7, Table()
        self.rows = 100_000 if quick else 1_000_000
        rng = np.random.default_rng(0)
        np.save(base / "x.npy", rng.random((self.rows, 10), "f4"))
        np.save(base / "v.npy", rng.standard_normal((self.rows // 10, 128), "f4"))
        self.workers = {module: Upstream(HERE / "python_worker.py", module) for module in (OURS, "numpack")}
        for module, w in self.workers.items():
            w.call("open", 1, str(base / f"{module}.npk"), str(base / "x.npy"))
            w.call("vectors", 1, str(base / "v.npy"))

    def close(self):
        for w in self.workers.values():
            w.close()

    def row(self, group, what, verb, *args, before=None):
        """`before`: what happens, untimed, before each single call."""
        peers = {module: w.peer(verb, *args) for module, w in self.workers.items()}
        prepare = {module: (lambda w=w: w.call(before, 1)) for module, w in self.workers.items()} if before else None
        self.table.pair(group, what, measure(peers, self.rounds, prepare), OURS, "numpack")

    def alone(self, group, what, verb, *args):
        """A row of ours without a peer; none when it cannot be measured, as the extension module that was not built."""
        times = measure({OURS: self.workers[OURS].peer("alone", verb, *args)}, self.rounds).get(OURS)
        if times:
            self.table.value(group, what, OURS, statistics.median(times), low=min(times), high=max(times))

    def call(self):
        self.table.heading("call: before anything is done")
        self.row("call", "an empty method of Python", "nothing")
        self.alone("call", "an empty call through ctypes", "ctypes")
        self.alone("call", "an empty call of _fast", "extension")

    def read(self):
        self.table.heading(f"read: {self.rows:,} x 10 float32")
        self.row("read", "has_array", "has_array")
        self.row("read", "load", "load")
        self.row("read", "get_shape", "get_shape")
        self.row("read", "load, lazy", "lazy")
        self.row("read", "lazy[i]", "lazy_rows", 1)
        self.row("read", "lazy[100 rows]", "lazy_rows", 100)
        self.row("read", "open, lazy load, close", "open_load_close")
        for n in (100, 1000, 10000):
            self.row("read", f"getitem of {n} rows", "getitem", n)
            self.alone("read", f"getitem of {n} rows, libnumpack alone", "getitem", n)
        for n in (1000, 10000):
            self.row("read", f"getitem of a slice of {n} rows", "slice", n)
            self.alone("read", f"a slice of {n} rows, libnumpack alone", "slice", n)

    def write(self):
        self.table.heading(f"write: {self.rows:,} x 10 float32")
        self.row("write", "save a new array", "save_new", before="unsave")
        self.row("write", "append 100 rows", "append", 100)
        self.alone("write", "append 100 rows, libnumpack alone", "append", 100)
        for w in self.workers.values():
            w.call("again", 1)
        self.row("write", "replace 100 scattered rows", "replace", 100)
        self.alone("write", "replace 100 rows, libnumpack alone", "replace", 100)
        self.row("write", "drop 100 scattered rows", "drop", 100, before="again")
        self.row("write", "update after dropping a tenth", "update", before="drop_tenth")
        for w in self.workers.values():
            w.call("again", 1)

    def batch(self):
        self.table.heading(f"batch: 100 times ten rows of {self.rows:,} x 10 float32")
        for mode in ("replace", "batch_mode", "writable_batch_mode"):
            self.row("batch", mode, "modify", mode)

    def search(self):
        n = self.rows // 10
        self.table.heading(f"search: top 10 of {n:,} x 128 float32 in memory")
        for metric in ("cosine", "l2", "dot"):
            for queries in (1, 10):
                self.row("search", f"{metric}, {queries} queries" if queries > 1 else f"{metric}, one query", "search", queries, metric)


def main():
    args = parse(__doc__, GROUPS, quick="3 rounds, a tenth of the rows")
    os.environ["LIBNUMPACK"] = str(args.build.resolve() / "libnumpack.so")
    os.environ["PYTHONPATH"] = str(ROOT / "contrib" / "python")
    with workplace(args.out, "work-python") as base:
        b = Bench(base, args.quick)
        run_groups(b, GROUPS, args.only)
    result = {"rounds": b.rounds, "quick": args.quick, "rows": [vars(r) for r in b.table.rows]}
    (args.out / "bench_python.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
