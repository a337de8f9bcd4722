"""Vector search against the libraries for it, every row of the goals in one interleaved run.

    bench_search.py --build build/release --out build/bench [--rounds 7] [--only WORD] [--named] [--scale 0.1] [--against build/clang]
                    [--picture FILE.svg]

The data lies in a store and is warm; each round runs ours and every peer once, and a figure is the median over the rounds of
ours divided by the peer of the same round, with its quartiles. --clock cpu counts processor time instead of elapsed time:
on a machine that others use too it is the only figure that means something (one thread only). Without a goal's peer
installed its row says so. Peers that need seconds a call run in the first two rounds only, unless a goal names them.
"""

import argparse
import json
import mmap
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "search")]

from npklib import Array, Library  # noqa: E402
from npkwrite import Spec, write_array, metadata, replace_file  # noqa: E402

K = 10


def optional(name):
    try:
        return __import__(name, fromlist=["x"])
    except Exception:
        return None


faiss, numkong, usearch, upstream = (optional(n) for n in ("faiss", "numkong", "usearch.index", "numpack.vector_engine"))


# --- the peers --------------------------------------------------------------------------------------------------------


def best(scores, high=False):
    """Indices of the K best columns of each row, best first, as a careful numpy user does it."""
    scores = -scores if high else scores
    at = np.argpartition(scores, K, axis=1)[:, :K]
    return np.take_along_axis(at, np.argsort(np.take_along_axis(scores, at, 1), 1), 1)


def numpy_l2sq(x, q):
    """By norms and a matrix product, in blocks that stay in the cache."""
    wide = np.float64 if x.dtype == np.float64 else np.float32
    q = q.astype(wide)
    scores = np.empty((len(q), len(x)), wide)
    for at in range(0, len(x), 8192):
        block = x[at:at + 8192].astype(wide, copy=False)
        scores[:, at:at + 8192] = np.einsum("ij,ij->i", block, block) - 2 * (q @ block.T)
    return best(scores)


def numpy_kl(x, q):
    return best(-(q @ np.log(x).T))


def faiss_flat(x, metric):
    """An index over all rows; its own copy of them."""
    dim = x.shape[1]
    if metric == "hamming":
        index = faiss.IndexBinaryFlat(8 * dim)
    elif x.dtype == np.float32:
        index = (faiss.IndexFlatIP if metric == "cosine" else faiss.IndexFlatL2)(dim)
    else:
        kind = {"float16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit_direct_signed}[x.dtype.name]
        index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_L2)
        index.train(x[:1000].astype(np.float32))
    for at in range(0, len(x), 100000):
        block = x[at:at + 100000]
        if metric == "cosine":
            block = block / np.linalg.norm(block, axis=1, keepdims=True)
        index.add(block if metric == "hamming" else block.astype(np.float32))
    return index


def faiss_search(index, q, metric):
    if metric == "cosine":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    q = q if metric == "hamming" else q.astype(np.float32)
    return lambda: index.search(q, K)[1]


def faiss_by_blas(search, use):
    """Whether faiss multiplies matrices is a global setting, whose default prefers not to for 100 queries."""
    def run():
        before = faiss.cvar.distance_compute_blas_threshold
        faiss.cvar.distance_compute_blas_threshold = 1 if use else 1 << 30
        try:
            return search()
        finally:
            faiss.cvar.distance_compute_blas_threshold = before
    return run


def numkong_cdist(x, q, metric):
    name = {"l2sq": "sqeuclidean", "cosine": "angular"}.get(metric, metric)
    more = {"dtype": "uint1"} if metric in ("hamming", "jaccard") else {}
    return lambda: best(np.asarray(numkong.cdist(q, x, name, **more)))


def usearch_exact(x, q, metric):
    kind = {"l2sq": usearch.MetricKind.L2sq, "cosine": usearch.MetricKind.Cos, "hamming": usearch.MetricKind.Hamming,
            "jaccard": usearch.MetricKind.Tanimoto}[metric]
    more = {"dtype": "b1"} if metric in ("hamming", "jaccard") else {}
    return lambda: usearch.search(x, q, K, kind, exact=True, threads=1, **more).keys


def real_numpack(x, q, metric):
    engine = upstream.VectorEngine()
    if len(q) == 1:
        return lambda: np.asarray(engine.top_k_search(q[0], x, metric, K)[0])
    return lambda: np.asarray(engine.multi_query_top_k(q, x, metric, K)[0])


# --- the rows of the table --------------------------------------------------------------------------------------------


def vectors(rng, dtype, shape):
    x = np.empty(shape, dtype)
    for at in range(0, shape[0], 100000):
        n = min(100000, shape[0] - at)
        if dtype == np.uint8:
            x[at:at + n] = rng.integers(0, 256, (n, shape[1]), np.uint8)
        elif dtype == np.int8:
            x[at:at + n] = np.clip(rng.standard_normal((n, shape[1]), np.float32) * 40, -127, 127)
        else:
            x[at:at + n] = rng.standard_normal((n, shape[1]), np.float32)
    return x


def shares(rng, shape):
    x = rng.random(shape, np.float32) + np.float32(1e-3)
    return x / x.sum(1, keepdims=True)


# name, dtype, rows, dim, metric, queries and goals {nq: (the goal's peer, ratio)}
TABLE = [
    ("f32 1M x 128", np.float32, 1000000, 128, "l2sq", {1: ("faiss", 0.87), 100: ("faiss-BLAS", 0.64)}),
    ("f32 1M x 128", np.float32, 1000000, 128, "cosine", {1: ("faiss", 0.9)}),
    ("f32 100K x 768", np.float32, 100000, 768, "l2sq", {1: ("faiss", 0.86), 100: ("faiss-BLAS", 0.84)}),
    ("f16 1M x 128", np.float16, 1000000, 128, "l2sq", {1: ("faiss", 0.71), 100: ("numpy", 0.31)}),
    ("f64 1M x 128", np.float64, 1000000, 128, "l2sq", {1: ("numpack", 0.72), 100: ("numpy", 0.4)}),
    ("i8 1M x 128", np.int8, 1000000, 128, "l2sq", {1: ("faiss", 0.8), 100: ("numpy", 0.24)}),
    ("i8 100K x 768", np.int8, 100000, 768, "l2sq", {100: ("numkong", 0.59)}),
    ("1M x 1024 bit", np.uint8, 1000000, 128, "hamming", {1: ("faiss", 0.6), 100: ("faiss", 0.34)}),
    ("1M x 1024 bit", np.uint8, 1000000, 128, "jaccard", {1: ("numkong", 0.53), 100: ("numkong", 0.33)}),
    ("f32 100K x 128", "shares", 100000, 128, "kl", {1: ("numpy", 0.28), 10: ("numpy", 0.39)}),
    ("f32 100K x 128", "shares", 100000, 128, "js", {1: ("faiss", 0.08), 10: ("faiss", 0.044)}),
]


def peers_of(x, q, metric, index, only):
    """{name: call}, each called once already; `only` that one if given. Wrong answers are timed all the same."""
    found = {}
    if faiss and metric == "js":
        found["faiss"] = lambda: faiss.knn(q, x, K, metric=faiss.METRIC_JensenShannon)[1]
    elif index:
        found["faiss"] = faiss_search(index, q, metric)
        if x.dtype == np.float32:
            search = found.pop("faiss")
            found["faiss"] = faiss_by_blas(search, False)
            if len(q) > 1:
                found["faiss-BLAS"] = faiss_by_blas(search, True)
    if metric == "l2sq":
        found["numpy"] = lambda: numpy_l2sq(x, q)
    elif metric == "kl":
        found["numpy"] = lambda: numpy_kl(x, q)
    if numkong and (metric in ("jaccard", "hamming") or (metric in ("l2sq", "cosine") and x.dtype != np.float64)):
        found["numkong"] = numkong_cdist(x, q, metric)
    if usearch and metric in ("l2sq", "cosine", "hamming", "jaccard"):
        found["usearch"] = usearch_exact(x, q, metric)
    if upstream and metric not in ("kl", "js"):
        found["numpack"] = real_numpack(x, q, metric)
    for name, call in list(found.items()):
        if only and name != only:
            del found[name]
            continue
        try:
            call()
        except Exception as e:
            print(f"  ({name} cannot do this: {str(e)[:80]})", flush=True)
            del found[name]
    return found


def right_ids(x, q, metric, rows):
    """Whether every row in `rows` is among the K best by float64, ties aside."""
    if metric in ("hamming", "jaccard"):
        count = np.array([bin(i).count("1") for i in range(256)], np.uint16)
        scores = count[x ^ q].sum(1).astype(float)
        if metric == "jaccard":
            scores = scores / np.maximum(count[x | q].sum(1), 1)
    else:
        scores = np.empty(len(x))
        w = q.astype(np.float64)
        for at in range(0, len(x), 100000):
            b = x[at:at + 100000].astype(np.float64)
            if metric == "l2sq":
                s = ((b - w) ** 2).sum(1)
            elif metric == "cosine":
                s = -(b @ w) / np.linalg.norm(b, axis=1) / np.linalg.norm(w)
            elif metric == "kl":
                s = (w * np.log(w / b)).sum(1)
            else:
                m = (w + b) / 2
                s = (w * np.log(w / m) + b * np.log(b / m)).sum(1)
            scores[at:at + 100000] = s
    cut = np.partition(scores, K - 1)[K - 1]
    return bool((scores[rows.astype(np.int64)] <= cut + 1e-9 * max(1, abs(cut))).all())


# --- measuring --------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self, kind):
        self.now = time.process_time if kind == "cpu" else time.perf_counter

    def time(self, call):
        start = self.now()
        call()
        return self.now() - start


def interleave(clock, calls, rounds, slow=()):
    """{name: [seconds of each round]}; the order turns with the rounds."""
    times = {name: [] for name in calls}
    names = list(calls)
    for i in range(rounds):
        for name in names[i % len(names):] + names[:i % len(names)]:
            if i < 2 or name not in slow:
                times[name].append(clock.time(calls[name]))
    return times


def ratio(a, b):
    """Median and quartiles of a[i] / b[i]."""
    n = min(len(a), len(b))
    r = sorted(x / y for x, y in zip(a[:n], b[:n]))
    return statistics.median(r), r[n // 4], r[-1 - n // 4]


def limits(build):
    program = build / "tests/bench/bench_limits"
    if not program.exists():
        return {}
    done = subprocess.run([str(program)], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def floor_of(limit, x, nq):
    """Seconds that no program can do without: every byte read once, every product of floats computed."""
    if not limit:
        return None
    seconds = x.nbytes / limit["read_gb_s"] / 1e9
    if x.dtype.kind == "f":
        seconds = max(seconds, 2 * x.size * nq / limit["fma_gflop_s"] / 1e9)
    return seconds


class Store:
    """One store with one array, made in a scratch directory."""

    def __init__(self, base, name, spec):
        self.path = pathlib.Path(base) / name
        self.path.mkdir()
        write_array(self.path, "x", spec)
        replace_file(self.path / "metadata.npkm", metadata({"x": spec}))
        self.file = self.path / "data_x.npkd"

    def open(self, lib):
        return Array(lib, self.path, "x")


class Run:
    def __init__(self, args):
        self.args = args
        self.clock = Clock(args.clock)
        self.lib = Library(args.build)
        self.other = Library(args.against) if args.against else None
        self.limit = limits(args.build)
        self.rng = np.random.default_rng(1)
        self.rows = []
        self.base = tempfile.mkdtemp(prefix="bench-search-", dir=args.out)

    def wanted(self, title):
        return not self.args.only or self.args.only in title

    def add(self, title, goal, got, spread, ms, **more):
        met = goal is None or got is None or (got >= goal if more.get("higher") else got <= goal)
        self.rows.append({"title": title, "goal": goal, "ratio": got, "spread": spread, "ms": ms, "met": met, **more})
        word = "" if goal is None or got is None else "met" if met else "SHORT"
        shown = "-" if got is None else f"{got:.3f} [{spread[0]:.3f} {spread[1]:.3f}]"
        rest = "  ".join(f"{k} {v:.1f}" for k, v in ms.items())
        part = f"  {100 * more['of_limit']:.0f} % of the limit" if more.get("of_limit") else ""
        print(f"{title:44} {shown:24} goal {goal if goal is not None else '-':<6} {word:6} {rest}{part}", flush=True)

    def workload(self, name, dtype, n, dim, metric, goals):
        n = int(n * self.args.scale)
        titles = {nq: f"{name} {metric}, {nq}" for nq in goals}
        if not any(self.wanted(t) for t in titles.values()):
            return
        x = shares(self.rng, (n, dim)) if dtype == "shares" else vectors(self.rng, dtype, (n, dim))
        store = Store(self.base, "s", Spec(x))
        index = None
        if faiss and metric in ("l2sq", "cosine", "hamming") and x.dtype != np.float64:
            index = faiss_flat(x, metric)
        a = store.open(self.lib)
        b = store.open(self.other) if self.other else None
        for nq, (named, goal) in goals.items():
            if not self.wanted(titles[nq]):
                continue
            q = shares(self.rng, (nq, dim)) if dtype == "shares" else vectors(self.rng, dtype, (nq, dim))
            calls = {"ours": lambda q=q: a.search(q, metric, K)}
            if b:
                calls["other build"] = lambda q=q: b.search(q, metric, K)
                peers = {}
            else:
                peers = peers_of(x, q, metric, index, named if self.args.named else None)
            calls.update(peers)
            ids, _ = a.search(q, metric, K)
            recall = all(right_ids(x, q[i], metric, ids[i]) for i in {0, nq - 1})
            slow = {p for p in peers if p != named and nq > 1}
            times = interleave(self.clock, calls, self.args.rounds, slow)
            ms = {p: 1e3 * statistics.median(t) for p, t in times.items()}
            against = "other build" if b else named
            low = floor_of(self.limit, x, nq)
            got, *spread = ratio(times["ours"], times[against]) if against in times else (None, None, None)
            self.add(titles[nq] + (f" / {against}"), None if b else goal, got, spread, ms, recall=recall,
                     of_limit=low / ms["ours"] * 1e3 if low else None)
            if not recall:
                print("  WRONG: not the best by float64", flush=True)
        a.close()
        if b:
            b.close()
        shutil.rmtree(store.path)

    def more(self):
        """Deleted rows, threads, the first query, a cold file: ratios of ours to ours."""
        n = int(1000000 * self.args.scale)
        x = vectors(self.rng, np.float32, (n, 128))
        q = vectors(self.rng, np.float32, (100, 128))
        dead = np.flatnonzero(self.rng.random(n) < 0.1).tolist()
        plain = Store(self.base, "plain", Spec(x))
        holes = Store(self.base, "holes", Spec(x, deleted=dead))
        wall = Clock("wall")
        with plain.open(self.lib) as a, holes.open(self.lib) as b:
            for nq in 1, 100:
                title = f"10 % deleted, {nq}"
                if self.wanted(title):
                    t = interleave(self.clock, {"deleted": lambda: b.search(q[:nq], "l2sq", K),
                                                "none": lambda: a.search(q[:nq], "l2sq", K)}, self.args.rounds)
                    got, *spread = ratio(t["deleted"], t["none"])
                    self.add(title, 1.15, got, spread, {k: 1e3 * statistics.median(v) for k, v in t.items()})
                title = f"two threads, {nq} (times as fast)"
                if self.wanted(title) and len(os.sched_getaffinity(0)) > 1:
                    t = interleave(wall, {"one": lambda: a.search(q[:nq], "l2sq", K),
                                          "two": lambda: a.search(q[:nq], "l2sq", K, threads=2)}, self.args.rounds)
                    got, *spread = ratio(t["one"], t["two"])
                    self.add(title, 1.5 if nq == 1 else 1.85, got, spread,
                             {k: 1e3 * statistics.median(v) for k, v in t.items()}, higher=True)
        if self.wanted("first query"):
            first, later = [], []
            for _ in range(self.args.rounds):
                with plain.open(self.lib) as a:
                    first.append(self.clock.time(lambda: a.search(q[:1], "l2sq", K)))
                    later.append(self.clock.time(lambda: a.search(q[:1], "l2sq", K)))
            got, *spread = ratio(first, later)
            self.add("first query of a mapping / later ones", 50 / 27, got, spread,
                     {"first": 1e3 * statistics.median(first), "later": 1e3 * statistics.median(later)})
        if self.wanted("cold"):
            self.cold(plain, q[:1], x.nbytes)
        if self.wanted("mount"):
            self.mount(plain)
        for s in plain, holes:
            shutil.rmtree(s.path)

    def cold(self, store, q, nbytes):
        """From the disk, against reading the same file with O_DIRECT."""
        with open(store.file, "rb") as f:
            os.fsync(f.fileno())

        def search():
            with open(store.file, "rb") as f:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with store.open(self.lib) as a:
                start = time.perf_counter()
                a.search(q, "l2sq", K, threads=2)
                return time.perf_counter() - start

        def direct():
            fd = os.open(store.file, os.O_RDONLY | os.O_DIRECT)
            buf, at = mmap.mmap(-1, 4 << 20), 0
            start = time.perf_counter()
            while at < nbytes:
                got = os.preadv(fd, [buf], at)
                if got <= 0:
                    break
                at += got
            took = time.perf_counter() - start
            os.close(fd)
            return took

        t = {"ours": [], "direct": []}
        for _ in range(min(self.args.rounds, 7)):
            t["direct"].append(direct())
            t["ours"].append(search())
        got, *spread = ratio(t["direct"], t["ours"])
        self.add("cold: of the disk's direct read rate", 0.9, got, spread,
                 {k: 1e3 * statistics.median(v) for k, v in t.items()}, higher=True)

    def mount(self, store):
        """A query written to `search` and its answer read, against the same call of the library: milliseconds more."""
        if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("fusermount3"):
            print("the mount: no /dev/fuse or no fusermount3", flush=True)
            return
        point = pathlib.Path(self.base) / "mnt"
        point.mkdir()
        threads = len(os.sched_getaffinity(0))
        daemon = subprocess.Popen([self.args.build / "numpackfs", "-f", "-o", "ro", store.path, point])
        try:
            while not os.path.ismount(point):
                if daemon.poll() is not None:
                    raise SystemExit(f"numpackfs ended with {daemon.returncode}")
                time.sleep(0.01)
            fd = os.open(point / ".numpack/arrays/x/search", os.O_RDWR)
            row = np.load(point / "x.npy", mmap_mode="r")[17:18].copy()

            def ask():
                os.pwrite(fd, b"k=10 metric=l2sq row=17\n", 0)
                assert os.pread(fd, 4096, 0).startswith(b"17 ")

            with store.open(self.lib) as a:
                t = interleave(Clock("wall"), {"mount": ask, "library": lambda: a.search(row, "l2sq", K, threads=threads)},
                               self.args.rounds)
            os.close(fd)
            more = sorted(1e3 * (x - y) for x, y in zip(t["mount"], t["library"]))
            self.add("through the mount, ms more", 1.0, statistics.median(more), (more[len(more) // 4], more[-1 - len(more) // 4]),
                     {k: 1e3 * statistics.median(v) for k, v in t.items()})
        finally:
            subprocess.run(["fusermount3", "-u", point], check=True)
            daemon.wait()

    def save(self):
        out = self.args.out
        report = {"machine": {"cpu": cpu_name(), "cpus": os.cpu_count(), **self.limit}, "clock": self.args.clock,
                  "rounds": self.args.rounds, "scale": self.args.scale, "load": os.getloadavg()[0], "rows": self.rows}
        (out / "search.json").write_text(json.dumps(report, indent=1) + "\n")
        if self.args.picture:
            self.args.picture.write_text(picture(self.rows))
        shutil.rmtree(self.base, ignore_errors=True)


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def picture(rows):
    """Bars of time relative to the peer (1 = the peer), the goal as a stroke."""
    rows = [r for r in rows if r["ratio"] is not None]
    width, left, step = 560, 330, 22
    high = max([1.2] + [min(r["ratio"], 2.2) for r in rows])
    scale = width / high
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{step * len(rows) + 60}" '
             'font-family="sans-serif" font-size="12">',
             '<rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left}" y="18">time relative to the named peer; | is the goal (times as fast: longer is better)</text>']
    for i, r in enumerate(rows):
        y = 30 + i * step
        bar = min(max(r["ratio"], 0), 2.2) * scale
        colour = "#3a7" if r["met"] else "#c63"
        title = r["title"].replace("&", "&amp;").replace("<", "&lt;")
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{title}</text>'
                     f'<rect x="{left}" y="{y + 2}" width="{bar:.1f}" height="14" fill="{colour}"/>'
                     f'<text x="{left + bar + 4:.1f}" y="{y + 13}">{r["ratio"]:.2f}</text>')
        if r["goal"] is not None:
            at = left + min(r["goal"], 2.2) * scale
            parts.append(f'<path d="M{at:.1f} {y - 1}v20" stroke="black" stroke-width="2"/>')
    at = left + scale
    parts.append(f'<path d="M{at:.1f} 26v{step * len(rows) + 6}" stroke="#999" stroke-dasharray="3 3"/></svg>')
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/bench")
    parser.add_argument("--against", type=pathlib.Path, help="another build of the library instead of the peers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rows")
    parser.add_argument("--only", help="rows of the table whose title contains this")
    parser.add_argument("--named", action="store_true", help="only the peers that the goals name")
    parser.add_argument("--picture", type=pathlib.Path, metavar="FILE", help="draw the ratios and goals, as SVG")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    args.build = args.build.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if faiss:
        faiss.omp_set_num_threads(1)
    run = Run(args)
    print(f"{cpu_name()}, {run.limit or 'limits unknown'}, load {os.getloadavg()[0]:.1f}, {args.clock} time", flush=True)
    try:
        for row in TABLE:
            run.workload(*row)
        if not args.against:
            run.more()
    finally:
        run.save()
    short = [r["title"] for r in run.rows if not r["met"] and r["ratio"] is not None]
    print(f"{len(run.rows) - len(short)} met, {len(short)} short" + "".join("\n  " + s for s in short))


if __name__ == "__main__":
    main()
