"""Files in and out against NumPy, pandas, polars and the safetensors package: ratios of time, interleaved, and peak memory.

    bench_io.py --build build/release [--rows 200000] [--rounds 5]

Each of our times is a whole process, npk, with the start, the fsync and the checkpoint; each peer's is a call in a process
that has its modules loaded; a peer that reads also saves what it read to a .npy file and syncs that, as npk does. Every result is checked against the data. Writes OUT/io.json and prints a table.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd
import polars as pl
import safetensors.numpy


class Bench:
    def __init__(self, args, work):
        self.npk, self.work, self.rounds = args.build / "npk", work, args.rounds
        rng = np.random.default_rng(1)
        self.data = rng.standard_normal((args.rows, 10))
        self.store = work / "s.npk"
        np.save(work / "x.npy", self.data)
        subprocess.run([self.npk, "create", self.store], check=True)
        subprocess.run([self.npk, "save", self.store, work / "x.npy"], check=True)
        self.rows = []

    def ours(self, *args):
        begin = time.perf_counter()
        subprocess.run([self.npk, *map(str, args)], check=True)
        return time.perf_counter() - begin

    def peak(self, *args):
        """MiB, asked of a small process: a child's mark begins with the size of who forked it."""
        asks = ("import os, sys; pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]); "
                "_, status, usage = os.wait4(pid, 0); print(usage.ru_maxrss); sys.exit(status != 0)")
        done = subprocess.run([sys.executable, "-ISc", asks, self.npk, *map(str, args)], check=True, capture_output=True)
        return int(done.stdout) / 1024

    def save_durably(self, a):
        """What an import has to do besides reading."""
        with open(self.work / "durable.npy", "wb") as f:
            np.save(f, a)
            os.fsync(f.fileno())

    def compare(self, name, peer, args, theirs, check):
        ratios, times = [], []
        for _ in range(self.rounds):
            mine = self.ours(*args)
            begin = time.perf_counter()
            theirs()
            other = time.perf_counter() - begin
            ratios.append(other / mine)
            times.append(mine)
        check()
        peak = self.peak(*args)
        self.rows.append({"what": name, "peer": peer, "times_as_fast": round(statistics.median(ratios), 2),
                          "mb_per_s": round(self.data.nbytes / 1e6 / statistics.median(times), 1), "peak_mib": round(peak, 1)})
        print(f"{name:28} {self.rows[-1]['times_as_fast']:6.2f} x {peer:22} {self.rows[-1]['mb_per_s']:8.1f} MB/s {peak:7.1f} MiB", flush=True)

    def stored(self, name):
        out = self.work / "check.npy"
        subprocess.run([self.npk, "get", self.store, name, "-o", out], check=True)
        return np.load(out)

    def expect(self, got):
        if got.tobytes() != self.data.tobytes():
            raise SystemExit("the result is not the data")

    def run(self):
        w, d = self.work, self.data
        frame, other = pd.DataFrame(d), pl.DataFrame(d)
        self.compare("CSV out", "pandas", ["export", self.store, w / "a.csv", "x"],
                     lambda: frame.to_csv(w / "p.csv", header=False, index=False),
                     lambda: self.expect(np.loadtxt(w / "a.csv", delimiter=",")))
        self.compare("CSV out", "polars (all threads)", ["export", self.store, w / "a.csv", "x"],
                     lambda: other.write_csv(w / "q.csv", include_header=False), lambda: self.expect(np.loadtxt(w / "a.csv", delimiter=",")))
        self.compare("CSV in", "polars (all threads)", ["import", self.store, w / "a.csv", "-n", "c"],
                     lambda: self.save_durably(pl.read_csv(w / "a.csv", has_header=False).to_numpy()), lambda: self.expect(self.stored("c")))
        self.compare("CSV in", "pandas (C, high)", ["import", self.store, w / "a.csv", "-n", "c"],
                     lambda: self.save_durably(pd.read_csv(w / "a.csv", header=None).to_numpy()), lambda: self.expect(self.stored("c")))
        self.compare("CSV in", "pandas (C, round_trip)", ["import", self.store, w / "a.csv", "-n", "c"],
                     lambda: self.save_durably(pd.read_csv(w / "a.csv", header=None, float_precision="round_trip").to_numpy()),
                     lambda: self.expect(self.stored("c")))
        self.compare("CSV in", "numpy.loadtxt", ["import", self.store, w / "a.csv", "-n", "c"],
                     lambda: self.save_durably(np.loadtxt(w / "a.csv", delimiter=",")), lambda: self.expect(self.stored("c")))
        self.compare("npz out, stored", "numpy.savez", ["export", self.store, w / "a.npz", "x"], lambda: np.savez(w / "n.npz", x=d),
                     lambda: self.expect(np.load(w / "a.npz")["x"]))
        self.compare("npz in, stored", "numpy.load", ["import", self.store, w / "a.npz", "x"], lambda: self.save_durably(np.load(w / "n.npz")["x"]),
                     lambda: self.expect(self.stored("x")))
        self.compare("npz out, deflated", "numpy.savez_compressed", ["export", self.store, w / "z.npz", "x", "-z", "6"],
                     lambda: np.savez_compressed(w / "y.npz", x=d), lambda: self.expect(np.load(w / "z.npz")["x"]))
        self.compare("npz in, deflated", "numpy.load", ["import", self.store, w / "z.npz", "x"], lambda: self.save_durably(np.load(w / "y.npz")["x"]),
                     lambda: self.expect(self.stored("x")))
        self.compare("safetensors out", "safetensors", ["export", self.store, w / "a.safetensors", "x"],
                     lambda: safetensors.numpy.save_file({"x": d}, w / "b.safetensors"),
                     lambda: self.expect(safetensors.numpy.load_file(w / "a.safetensors")["x"]))
        self.compare("safetensors in", "safetensors", ["import", self.store, w / "a.safetensors", "x"],
                     lambda: self.save_durably(safetensors.numpy.load_file(w / "b.safetensors")["x"]), lambda: self.expect(self.stored("x")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench"))
    parser.add_argument("--rows", type=int, default=200_000, help="of ten float64 each")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    args.build = args.build.resolve()
    work = pathlib.Path(tempfile.mkdtemp(prefix="npk-bench-io-"))
    try:
        bench = Bench(args, work)
        bench.run()
    finally:
        shutil.rmtree(work)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "io.json").write_text(json.dumps({"rows": args.rows, "results": bench.rows}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
