"""What numpackfs.dask costs and gains on this machine: the figures of contrib/python/SCALING.md.

    bench_dask.py --build build/release --out build/bench [--rows 1000000] [--rounds 7] [--dir DIRECTORY]

Peers of one line are timed in turns, once each in a round, and a ratio is the median over the rounds of one divided by the other
of the same round, with its quartiles. Results are compared with one process's before anything is timed. The table goes to
standard output and to OUT/dask.json.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 60.0


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Bench:
    def __init__(self, args, base):
        self.args, self.base, self.rows = args, base, []

    def say(self, what, unit, value, low=None, high=None):
        self.rows.append({"what": what, "unit": unit, "value": value, "low": low, "high": high})
        spread = f" ({low:.3g} to {high:.3g})" if low is not None else ""
        print(f"| {what} | {value:.3g}{spread} {unit} |", flush=True)

    def turns(self, *calls):
        """Seconds of each call, a list with one value a round."""
        out = [[] for _ in calls]
        for call in calls:
            call()
        for r in range(self.args.rounds):
            for i in range(len(calls)):
                i = (i + r) % len(calls)
                out[i].append(seconds(calls[i]))
        return out

    def spread(self, what, unit, values):
        q = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        self.say(what, unit, q[1], q[0], q[2])

    def ratio(self, what, a, b):
        self.spread(what, "x", [x / y for x, y in zip(a, b)])

    @contextlib.contextmanager
    def mount(self, store, *options):
        at = self.base / f"mnt{time.monotonic_ns()}"
        at.mkdir()
        program = self.args.build / "numpackfs"
        subprocess.run([program, *(["-o", ",".join(options)] if options else []), store, at], check=True)
        try:
            yield at
        finally:
            subprocess.run([self.args.build / "npk", "umount", at], check=True)
            at.rmdir()

    # --- one machine ---

    def one_machine(self, npd, np, NumPack, Engine, client):
        n, dim = self.args.rows, 128
        store = self.base / "x.npk"
        rng = np.random.default_rng(0)
        with NumPack(store) as s:
            s.save({"x": np.zeros((0, dim), "f4")})
            for at in range(0, n, 100_000):
                s.append({"x": rng.standard_normal((min(100_000, n - at), dim), "f4")})
        q, qs = rng.standard_normal(dim).astype("f4"), rng.standard_normal((100, dim)).astype("f4")
        chunk = -(-n // 8)

        def single(queries, k=10):
            call = Engine().streaming_multi_query_top_k if queries.ndim == 2 else Engine().streaming_top_k_from_file
            return call(queries, store, "x", "l2", k)

        def many(queries, path=store):
            return npd.top_k(queries, path, "x", "l2", 10, chunk_rows=chunk)

        for queries in (q, qs):
            for a, b in zip(single(queries), many(queries)):
                assert a.tobytes() == b.tobytes(), "the cluster finds something else"
        for queries, what in ((q, "1 query"), (qs, "100 queries")):
            a, b = self.turns(lambda: many(queries), lambda: single(queries))
            self.ratio(f"top 10 of {n} x {dim} float32, {what}: 2 worker processes / one process with 2 threads", a, b)
            if queries is q:
                self.spread("the same, cluster, elapsed", "ms", [1000 * x for x in a])
        with self.mount(store, "ro") as m:
            a, b = self.turns(lambda: many(qs, m), lambda: many(qs))
            self.ratio("the same, 100 queries: workers on a mount / on the store", a, b)
            client.run(npd.forget)
            npd.forget()
        raw = np.lib.format.open_memmap(self.base / "raw.npy", "w+", "f4", (n, dim))
        with NumPack(store) as s:
            raw[:] = s.load("x", lazy=True)
        import dask.array as da

        ours, theirs = npd.array(store, "x", chunk_rows=chunk), da.from_array(raw, chunks=(chunk, dim))
        a, b, c = self.turns(lambda: ours.sum().compute(scheduler="threads"), lambda: theirs.sum().compute(scheduler="threads"),
                             lambda: raw.sum())
        self.ratio("sum of it, threads: numpackfs.dask / dask over numpy's memmap", a, b)
        self.ratio("sum of it: numpackfs.dask with threads / numpy on a memmap", a, c)
        small = npd.array(store, "x", chunk_rows=max(1, n // 1000))
        tasks = len(small.chunks[0])
        a, = self.turns(lambda: small.map_blocks(lambda b: b[:1, 0], drop_axis=1, dtype="f4", chunks=((1,) * tasks,)).compute())
        self.spread("a task that opens a chunk and does nothing with it, cluster", "ms", [1000 * x / tasks for x in a])
        self.spread("make a graph of it: look at the store", "ms",
                    [1000 * x for x in self.turns(lambda: npd.array(store, "x", chunk_rows=chunk))[0]])

    # --- one writer, many readers ---

    def writers(self, npd, np, NumPack):
        import dask.array as da

        width, rows, blocks = 128, 4000, 32
        store = self.base / "w.npk"
        with NumPack(store) as s:
            s.save({"x": np.zeros((0, width), "f4")})
        x = da.ones((rows * blocks, width), chunks=(rows, width), dtype="f4")
        with self.mount(store) as m:
            block = np.ones((rows, width), "f4")

            def alone():
                for _ in range(blocks):
                    with open(m / ".numpack/arrays/x/append", "wb") as f:
                        np.save(f, block)

            a, b = self.turns(lambda: npd.append(x, m, "x"), alone)
            mib = rows * blocks * width * 4 / 2**20
            self.spread(f"append {blocks} blocks of {block.nbytes >> 20} MiB through one mount, 2 workers", "MiB/s", [mib / t for t in a])
            self.ratio("the same: 2 workers / one process with np.save", a, b)
        for watch in ("inotify", "poll:100"):
            lag = []
            with self.mount(store) as w, self.mount(store, "ro", f"watch={watch}") as r:
                for _ in range(max(5, self.args.rounds)):
                    with open(w / ".numpack/arrays/x/append", "wb") as f:
                        np.save(f, block[:1])
                    start, want = time.perf_counter(), (w / ".numpack/arrays/x/shape").read_text()
                    while (r / ".numpack/arrays/x/shape").read_text() != want:
                        if time.perf_counter() - start > PATIENCE:
                            raise SystemExit(f"the mount with watch={watch} does not follow")
                    lag.append(1000 * (time.perf_counter() - start))
            self.spread(f"an append until a read-only mount shows it, watch={watch}", "ms", lag)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", type=pathlib.Path, required=True)
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--rows", type=int, default=1_000_000)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--dir", help="where the stores are made")
    args = p.parse_args()
    args.build = args.build.resolve()
    os.environ["LIBNUMPACK"] = str(args.build / "libnumpack.so")
    os.environ["PYTHONPATH"] = str(ROOT / "contrib" / "python")
    sys.path.insert(0, os.environ["PYTHONPATH"])
    import warnings

    import numpy as np
    from distributed import Client, LocalCluster

    import numpackfs.dask as npd
    from numpackfs import NumPack
    from numpackfs.vector_engine import StreamingVectorEngine

    warnings.filterwarnings("ignore", "Running on a single-machine scheduler")
    base = pathlib.Path(tempfile.mkdtemp(prefix="bench-dask-", dir=args.dir))
    bench = Bench(args, base)
    print("| what | median (quartiles) |\n| --- | --- |")
    try:
        with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1", memory_limit=0,
                          local_directory=str(base)) as cluster, Client(cluster) as client:
            bench.one_machine(npd, np, NumPack, StreamingVectorEngine, client)
            bench.writers(npd, np, NumPack)
    finally:
        shutil.rmtree(base)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "dask.json").write_text(json.dumps({"rows": args.rows, "rounds": args.rounds, "cpus": os.cpu_count(), "results": bench.rows},
                                                   indent=1) + "\n")


if __name__ == "__main__":
    main()
