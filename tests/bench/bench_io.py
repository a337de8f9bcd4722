"""Files in and out against NumPy, pandas, polars and the safetensors package: ratios of time, interleaved, and peak memory.

    bench_io.py --build build/release [--rows 200000] [--mib 256] [--members 4096] [--rounds 5] [--only npz]

Ours is a whole process, npk, with its start, and what it wrote is on the disk when it ends. A peer is a call in a process of its
own that has its modules loaded, and, if it writes, its data in memory. Its time counts twice: as it is ("call"), and with what
makes it last ("synced"): the sync of the file that it wrote, or, when it reads, one synced .npy file for each array. The second is
what npk does. A ratio says how many times as fast npk is: the median of the rounds and their range. Every result is checked
against the data. Writes OUT/io.json and prints a table; exits with 1 when a goal is missed.
"""

import argparse
import dataclasses
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

GOALS = {("CSV in", "pandas"): 1.0, ("CSV out", "pandas"): 5.0}    # of the synced ratio and of the plain one


# --- the peers: each makes ready, and returns the call that is timed and the file that it writes --------------------------


def csv_out_pandas(work):
    import pandas as pd
    frame = pd.DataFrame(np.load(work / "table.npy"))
    return lambda: frame.to_csv(work / "peer.csv", header=False, index=False), work / "peer.csv"


def csv_out_polars(work):
    import polars as pl
    frame = pl.DataFrame(np.load(work / "table.npy"))
    return lambda: frame.write_csv(work / "peer.csv", include_header=False), work / "peer.csv"


def csv_out_numpy(work):
    table = np.load(work / "table.npy")
    return lambda: np.savetxt(work / "peer.csv", table, fmt="%.17g", delimiter=","), work / "peer.csv"


def csv_in_pandas(work):
    import pandas as pd
    return lambda: {"t": pd.read_csv(work / "table.csv", header=None).to_numpy()}, None


def csv_in_pandas_exact(work):
    import pandas as pd
    return lambda: {"t": pd.read_csv(work / "table.csv", header=None, float_precision="round_trip").to_numpy()}, None


def csv_in_polars(work):
    import polars as pl
    return lambda: {"t": pl.read_csv(work / "table.csv", has_header=False).to_numpy()}, None


def csv_in_numpy(work):
    return lambda: {"t": np.loadtxt(work / "table.csv", delimiter=",")}, None


def load(work, kind):
    with np.load(work / f"{kind}.npz") as z:
        return {name: z[name] for name in z.files}


def npz_out(kind, save):
    def ready(work):
        arrays = load(work, kind)
        return lambda: save(work / "peer.npz", **arrays), work / "peer.npz"
    return ready


def npz_in(kind, suffix):
    return lambda work: (lambda: load(work, kind + suffix), None)


def tensors_out(kind):
    def ready(work):
        import safetensors.numpy
        arrays = load(work, kind)
        return lambda: safetensors.numpy.save_file(arrays, work / "peer.safetensors"), work / "peer.safetensors"
    return ready


def tensors_in(kind):
    def ready(work):
        import safetensors.numpy
        return lambda: safetensors.numpy.load_file(work / f"{kind}.safetensors"), None
    return ready


def npy_in(work):
    return lambda: {"x": np.load(work / "one.npy")}, None


def npy_out(work):
    a = np.load(work / "one.npy")
    return lambda: np.save(work / "peer.npy", a), work / "peer.npy"


@dataclasses.dataclass
class Case:
    what: str
    peers: dict
    args: list          # of npk; {} is the directory
    data: str           # what is moved: the stem of an .npz or .npy file
    makes: str = None   # the file that npk writes; None: it fills the store dst.npk


def cases():
    out, back = ["export", "{}/src.npk", "{}/ours.csv", "table"], ["import", "{}/dst.npk", "{}/table.csv", "--name", "table"]
    yield Case("CSV out", {"pandas": csv_out_pandas, "polars": csv_out_polars, "numpy": csv_out_numpy}, out, "table", "ours.csv")
    yield Case("CSV in", {"pandas": csv_in_pandas, "pandas, exact": csv_in_pandas_exact, "polars": csv_in_polars,
                          "numpy": csv_in_numpy}, back, "table")
    yield Case("npy out", {"numpy": npy_out}, ["export", "{}/src.npk", "{}/ours.npy", "one"], "one", "ours.npy")
    yield Case("npy in", {"numpy": npy_in}, ["import", "{}/dst.npk", "{}/one.npy"], "one")
    for kind in ("few", "many"):
        store = f"{{}}/{kind}.npk"
        yield Case(f"npz out, {kind}", {"numpy": npz_out(kind, np.savez)}, ["export", store, "{}/ours.npz"], kind, "ours.npz")
        yield Case(f"npz in, {kind}", {"numpy": npz_in(kind, "")}, ["import", "{}/dst.npk", f"{{}}/{kind}.npz"], kind)
        yield Case(f"safetensors out, {kind}", {"safetensors": tensors_out(kind)}, ["export", store, "{}/ours.safetensors"], kind,
                   "ours.safetensors")
        yield Case(f"safetensors in, {kind}", {"safetensors": tensors_in(kind)},
                   ["import", "{}/dst.npk", f"{{}}/{kind}.safetensors"], kind)
    yield Case("npz out, deflated", {"numpy": npz_out("less", np.savez_compressed)},
               ["export", "{}/less.npk", "{}/ours.npz", "--compress", "6"], "less", "ours.npz")
    yield Case("npz in, deflated", {"numpy": npz_in("less", "_deflated")}, ["import", "{}/dst.npk", "{}/less_deflated.npz"], "less")


# --- a peer in its own process ----------------------------------------------------------------------------------------


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def peak_kib():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def be_peer(work, what, name):
    case = next(c for c in cases() if c.what == what)
    call, written = case.peers[name](work)
    started = time.perf_counter()
    got = call()
    seconds = time.perf_counter() - started
    peak = peak_kib()
    if written:
        sync(written)
    else:
        for name, a in got.items():
            np.save(work / "kept" / f"{name}.npy", a)
        for name in got:
            sync(work / "kept" / f"{name}.npy")
        sync(work / "kept")
    print(json.dumps({"call": seconds, "synced": time.perf_counter() - started, "peak_mib": peak / 1024}))


# --- the rounds -------------------------------------------------------------------------------------------------------


def make_arrays(n, mib):
    """Of so many MiB together: noise, steps, small numbers, bytes; rows of different lengths."""
    rng = np.random.default_rng(3)
    size = (mib << 20) // n
    makers = [lambda: rng.standard_normal(size // 4, dtype=np.float32).reshape(-1, 64),
              lambda: np.cumsum(rng.integers(-9, 10, size // 8)).reshape(-1, 8),
              lambda: rng.integers(0, 100, size // 4, dtype=np.int32),
              lambda: np.frombuffer(rng.bytes(size // 8), np.uint8).repeat(8).reshape(-1, 256)]
    return {f"a{i:05}": makers[i % 4]() for i in range(n)}


class Bench:
    def __init__(self, args, work):
        self.args, self.npk, self.work, self.rows = args, args.build / "npk", work, []
        (work / "kept").mkdir()

    def make(self):
        import safetensors.numpy
        w = self.work
        np.save(w / "table.npy", np.random.default_rng(1).standard_normal((self.args.rows, 10)))
        np.save(w / "one.npy", np.random.default_rng(2).standard_normal((self.args.mib * 1024, 128)))
        subprocess.run([self.npk, "create", w / "src.npk"], check=True)
        subprocess.run([self.npk, "save", w / "src.npk", w / "table.npy", w / "one.npy"], check=True)
        subprocess.run([self.npk, "export", w / "src.npk", w / "table.csv", "table"], check=True)
        for kind, n, mib in (("few", 4, self.args.mib), ("many", self.args.members, self.args.mib), ("less", 4, self.args.mib // 8)):
            arrays = make_arrays(n, mib)
            np.savez(w / f"{kind}.npz", **arrays)
            if kind == "less":
                np.savez_compressed(w / "less_deflated.npz", **arrays)
            safetensors.numpy.save_file(arrays, w / f"{kind}.safetensors")
            subprocess.run([self.npk, "create", w / f"{kind}.npk"], check=True)
            subprocess.run([self.npk, "import", w / f"{kind}.npk", w / f"{kind}.npz"], check=True)

    def ours(self, case):
        """Seconds and peak MiB, asked of a small process: a child's mark begins with the size of who forked it."""
        asks = ("import os, sys, time; t = time.perf_counter(); pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]); "
                "_, status, usage = os.wait4(pid, 0); print(time.perf_counter() - t, usage.ru_maxrss); sys.exit(status != 0)")
        argv = [self.npk, *(a.format(self.work) for a in case.args)]
        done = subprocess.run([sys.executable, "-ISc", asks, *map(str, argv)], check=True, capture_output=True)
        seconds, peak = done.stdout.split()
        return {"synced": float(seconds), "peak_mib": int(peak) / 1024}

    def peer(self, case, name):
        done = subprocess.run([sys.executable, __file__, "--peer", case.what, name, str(self.work)], check=True, capture_output=True)
        return json.loads(done.stdout)

    def fresh(self, case):
        """Nothing that was written before is there, or waits for the disk."""
        w = self.work
        shutil.rmtree(w / "dst.npk", ignore_errors=True)
        shutil.rmtree(w / "kept")
        (w / "kept").mkdir()
        for path in [*w.glob("ours.*"), *w.glob("peer.*")]:
            path.unlink()
        if not case.makes:
            subprocess.run([self.npk, "create", w / "dst.npk"], check=True)
        os.sync()

    def check(self, case):
        w, file = self.work, self.work / f"{case.data}.npz"
        want = load(w, case.data) if file.exists() else {case.data: np.load(w / f"{case.data}.npy")}
        if case.makes == "ours.csv":
            got = {case.data: np.loadtxt(w / "ours.csv", delimiter=",")}
        elif case.makes == "ours.npy":
            got = {case.data: np.load(w / "ours.npy")}
        elif case.makes == "ours.safetensors":
            import safetensors.numpy
            got = safetensors.numpy.load_file(w / "ours.safetensors")
        else:
            if not case.makes:
                subprocess.run([self.npk, "export", w / "dst.npk", w / "ours.npz"], check=True)
            got = load(w, "ours")
        if got.keys() != want.keys() or any(got[n].dtype != a.dtype or got[n].tobytes() != a.tobytes() for n, a in want.items()):
            raise SystemExit(f"{case.what}: the result is not the data")
        return sum(a.nbytes for a in want.values())

    def compare(self, case):
        found = {name: [] for name in (None, *case.peers)}
        for i in range(self.args.rounds):
            order = list(found)
            for name in order[i % len(order):] + order[:i % len(order)]:
                self.fresh(case)
                found[name].append(self.ours(case) if name is None else self.peer(case, name))
        self.fresh(case)
        self.ours(case)
        nbytes = self.check(case)
        mine = found.pop(None)
        for name, theirs in found.items():
            self.add(case, name, mine, theirs, nbytes)

    def add(self, case, name, mine, theirs, nbytes):
        seconds = statistics.median(m["synced"] for m in mine)
        row = {"what": case.what, "peer": name, "seconds": round(seconds, 4), "mb_per_s": round(nbytes / 1e6 / seconds, 1),
               "peak_mib": round(max(m["peak_mib"] for m in mine), 1), "their_peak_mib": round(max(t["peak_mib"] for t in theirs), 1)}
        for kind in ("call", "synced"):
            ratios = [t[kind] / m["synced"] for m, t in zip(mine, theirs)]
            row[kind] = [round(f(ratios), 3) for f in (statistics.median, min, max)]
        row["goal"] = GOALS.get((case.what, name))
        row["met"] = row["goal"] is None or row["call"][0] >= row["goal"]
        self.rows.append(row)
        print("{:22} {:14} {:8.3f} s {:8.1f} MB/s".format(case.what, name, seconds, row["mb_per_s"]),
              *("{:7.2f} ({:.2f}..{:.2f})".format(*row[k]) for k in ("call", "synced")),
              "{:8.1f} {:8.1f} MiB".format(row["peak_mib"], row["their_peak_mib"]),
              "" if row["goal"] is None else f"goal {row['goal']:g} {'met' if row['met'] else 'MISSED'}", flush=True)


def main():
    if sys.argv[1:2] == ["--peer"]:
        return be_peer(pathlib.Path(sys.argv[4]), sys.argv[2], sys.argv[3])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench"))
    parser.add_argument("--rows", type=int, default=200_000, help="of the CSV file, ten float64 each")
    parser.add_argument("--mib", type=int, default=256, help="of the other files; an eighth of it is deflated")
    parser.add_argument("--members", type=int, default=4096, help="of the files with many arrays")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases that begin so")
    args = parser.parse_args()
    args.build = args.build.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="npk-bench-io-", dir=args.out)).resolve()
    try:
        bench = Bench(args, work)
        bench.make()
        print(f"{'':22} {'':14} {'npk':>10} {'':13} {'x as fast as call':>21} {'and with its sync':>21} {'peak npk':>8} {'peer':>8}")
        for case in cases():
            if case.what.startswith(args.only):
                bench.compare(case)
    finally:
        shutil.rmtree(work)
    (args.out / "io.json").write_text(json.dumps({"rows": args.rows, "mib": args.mib, "members": args.members,
                                                  "rounds": args.rounds, "results": bench.rows}, indent=1) + "\n")
    return 0 if all(row["met"] for row in bench.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
