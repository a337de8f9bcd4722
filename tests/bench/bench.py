"""Reading, measured against what people use instead: numpy on plain files and the real NumPack.

    bench.py --build build/release --out build/bench [--quick] [--only GROUP]

Groups: library, flat, open, mount. Every row compares peers that were timed in turn, in rounds; it shows the median of the
rounds' ratios, their least and greatest, and the goal. Nothing here fails because of time. The table goes to stdout; DIR
gets bench.json and bench.svg.
"""

import contextlib
import ctypes
import gc
import json
import mmap
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import lib as binding  # noqa: E402
from measure import Table, Upstream, local, measure, parse, run_groups, workplace  # noqa: E402
from picture import svg  # noqa: E402
from stores import COLUMNS, DELETED, Sized, many  # noqa: E402

LISTS = 16          # index lists in turn, so that a list's rows do not stay in the first cache
BLOCK = 10_000      # rows of a scan
GIB = 1 << 30


def sized(n):
    return f"{n // 1_000_000}M" if n >= 1_000_000 else f"{n // 1000}K" if n >= 1000 else str(n)


def machine(base):
    """What the figures depend on, without names of hosts or places."""
    model = "unknown"
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    fs = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", str(base)], capture_output=True, text=True).stdout.strip()
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release().split("-")[0],
            "filesystem": fs, "python": platform.python_version(), "numpy": np.__version__,
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB)}


def available():
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))


def room(base, memory, disk):
    """Why something of that size cannot be done here, or None."""
    if available() < memory:
        return f"needs {memory / GIB:.0f} GiB of free memory"
    if shutil.disk_usage(base).free < disk:
        return f"needs {disk / GIB:.0f} GiB of disk"
    return None


class Bench:
    def __init__(self, build, base, quick):
        self.build, self.base, self.quick = build, base, quick
        self.rounds = 3 if quick else 7
        self.table = Table()
        self.lib = binding.Library(build / "libnumpack.so")
        self.store_cache = {}
        self.mounter = None

    # --- what the groups share ----------------------------------------------------------------------------------------

    def store(self, rows):
        if rows not in self.store_cache:
            self.store_cache[rows] = Sized(self.base, rows)
        return self.store_cache[rows]

    @contextlib.contextmanager
    def mounted(self, path, *options):
        """None when this machine cannot mount."""
        why = None if os.access("/dev/fuse", os.R_OK | os.W_OK) else "no access to /dev/fuse"
        if why is None and not (self.build / "numpackfs").exists():
            why = "numpackfs is not built"
        if why is None and not shutil.which("fusermount3"):
            why = "fusermount3 is not installed"
        if why:
            self.table.skip("the mount", why)
            yield None
            return
        if self.mounter is None:
            os.environ["NPK_BUILD"] = str(self.build)
            import harness  # of the tests: mounts that are surely gone afterwards
            self.watchdog = harness.Watchdog()
            self.mounter = harness.Mounter(self.base / "mounts", self.watchdog, life=1200)
        with self.mounter(path, *options) as m:
            yield m
            gc.collect()

    def close(self):
        if self.mounter:
            self.watchdog.close()

    def micro(self, *args):
        """The figures of bench_read, a C program: {(name, array, rows): [seconds per call, one a round]}."""
        program = self.build / "tests" / "bench" / "bench_read"
        if not program.exists():
            self.table.skip("bench_read", "not built")
            return {}
        out = subprocess.run([str(program), *map(str, args)], capture_output=True, text=True, check=True).stdout
        return {(r["name"], r["array"], r["rows"]): [ns * 1e-9 for ns in r["ns"]] for r in map(json.loads, out.splitlines())}

    # --- performance.md section 1 --------------------------------------------------------------------------------------

    def library(self):
        for rows in (100_000, 1_000_000) if self.quick else (100_000, 1_000_000, 10_000_000):
            why = room(self.base, rows * 300, rows * 400)
            if why:
                self.table.skip(f"library at {sized(rows)}", why)
                continue
            s = self.store(rows)
            with self.mounted(s.path) as m:
                Section1(self, s, m).run()
            if rows > 1_000_000 and self.quick:
                s.remove()

    # --- flat in the number of rows ------------------------------------------------------------------------------------

    def flat(self):
        """Per-row cost of 10K random rows against numpy's take of the same rows from the same mapping."""
        self.table.heading("flat: 10K random rows in one call, library / numpy's take of the same slots, same mapping")
        base = None
        for rows in (100_000, 1_000_000, 10_000_000) if self.quick else (100_000, 1_000_000, 10_000_000, 100_000_000):
            why = room(self.base, rows * 80, rows * 45)
            if why:
                self.table.skip(f"flat at {sized(rows)}", why)
                continue
            s = Sized(self.base / "flat", rows, sparse=True)
            store = self.lib.open(os.fsencode(s.path))
            data = np.memmap(s.path / "data_x0.npkd", np.float32, "r", shape=(rows, COLUMNS))
            out, rng, peers, arrays = np.empty((BLOCK, COLUMNS), np.float32), np.random.default_rng(7), {}, []
            for percent in DELETED:
                name = f"x{percent}"
                lists = [rng.integers(0, s.count(name), BLOCK) for _ in range(LISTS)]
                slots = [i if percent == 0 else s.live[name][i] for i in lists]
                a = binding.Array(self.lib, store, name.encode())
                arrays.append(a)
                peers[f"library {percent} %"] = local(a.taker(lists, out))
                peers[f"numpy {percent} %"] = local(turns(slots, lambda i: np.take(data, i, axis=0)))
            for p in peers.values():
                p(LISTS)        # every page that the lists touch
            found = measure(peers, self.rounds)
            for percent in DELETED:
                self.table.pair("flat", f"{sized(rows)}, {percent} % deleted", found, f"library {percent} %",
                                f"numpy {percent} %")
            cost = {k: statistics.median(v) for k, v in found.items()}
            if base is None:
                base = rows, cost
            elif rows == (10_000_000 if self.quick else 100_000_000):
                for percent in DELETED:
                    ours = cost[f"library {percent} %"] / base[1][f"library {percent} %"]
                    theirs = cost[f"numpy {percent} %"] / base[1][f"numpy {percent} %"]
                    self.table.value("flat", f"growth {sized(base[0])} to {sized(rows)}, {percent} %", "library / numpy",
                                     ours / theirs, goal=1.3, unit="x", note=f"{ours:.2f}x against {theirs:.2f}x")
            for a in arrays:
                a.close()
            self.lib.store_close(store)
            del data, peers
            gc.collect()
            s.remove()

    # --- a store with many arrays --------------------------------------------------------------------------------------

    def open(self):
        n = 10_000
        self.table.heading(f"open: a store with {n:,} arrays")
        path, plain = many(self.base, n)
        name = os.fsencode(path)

        def open_close():
            self.lib.store_close(self.lib.open(name))
        found = measure({"library": local(open_close), "scandir of .npy files": local(lambda: names(plain))}, self.rounds)
        self.table.pair("open", f"open + close, {n:,} arrays", found, "library", "scandir of .npy files")
        for (call, _, _), took in self.micro("open", path).items():
            self.table.value("open", f"{call}, {n:,} arrays", "C program", statistics.median(took),
                             0.010 if call == "open" else None, min(took), max(took))
        with self.mounted(path) as m:
            if m:
                self.listing(m, plain, n)

    def listing(self, m, plain, n):
        start = time.perf_counter()
        subprocess.run(["ls", "-l", str(m.path)], stdout=subprocess.DEVNULL, check=True)
        self.table.value("open", f"first ls -l, {n:,} arrays", "mount", time.perf_counter() - start, 1.0)
        found = measure({"mount": local(lambda: names(m.path)), "ext4": local(lambda: names(plain))}, self.rounds)
        self.rename(found)
        self.table.pair("open", f"readdir of {n:,}", found, "mount", "backing fs", 0.3)
        found = measure({"mount": local(lambda: stats(m.path)), "ext4": local(lambda: stats(plain))}, self.rounds)
        self.rename(found)
        self.table.pair("open", f"readdir with stat of {n:,}", found, "mount", "backing fs", 1.0)
        memory = resident(m.pid)
        self.table.value("open", f"resident memory, {n:,} arrays", "daemon", memory["RssAnon"], 50, unit="MiB",
                         note=f"and {memory['RssFile']:.0f} MiB of mapped files and code")

    @staticmethod
    def rename(found):
        found["backing fs"] = found.pop("ext4")

    # --- performance.md section 2 --------------------------------------------------------------------------------------

    def mount(self):
        rows = 1_000_000 if self.quick else 10_000_000
        why = room(self.base, rows * 300, rows * 400)
        if why:
            self.table.skip(f"mount at {sized(rows)}", why)
            return
        s = self.store(rows)
        with self.mounted(s.path) as m:
            if m:
                Section2(self, s, m).run()


def turns(lists, call):
    """A call that takes one list after another."""
    turn = [0]

    def next_one():
        turn[0] = (turn[0] + 1) % len(lists)
        return call(lists[turn[0]])
    return next_one


def names(path):
    with os.scandir(path) as it:
        return sum(1 for _ in it)


def stats(path):
    with os.scandir(path) as it:
        return sum(e.stat().st_size for e in it)


def resident(pid):
    with open(f"/proc/{pid}/status") as f:
        return {k: int(v.split()[0]) / 1024 for k, v in (line.split(":", 1) for line in f) if k.startswith("Rss")}


class Section1:
    """One size: each operation with every peer and every share of deleted rows in one interleaved measurement."""

    def __init__(self, bench, store, mount):
        self.b, self.s, self.m, self.lib, self.table = bench, store, mount, bench.lib, bench.table
        self.rng = np.random.default_rng(3)
        self.names = [f"x{p}" for p in store.deleted]
        self.buffer = np.empty((max(BLOCK, 1), COLUMNS), np.float32)
        self.path = os.fsencode(store.path)

    def where(self, name):
        return self.m.array(name) if self.m else None

    def run(self):
        self.opened = self.lib.open(self.path)
        self.arrays = {n: binding.Array(self.lib, self.opened, n.encode()) for n in self.names}
        self.maps = {n: np.load(self.s.npy[n], mmap_mode="r") for n in self.names}
        self.mounted = {n: np.load(self.where(n), mmap_mode="r") for n in self.names} if self.m else {}
        self.real = Upstream(HERE / "upstream.py")
        self.real.call("open", 0, str(self.s.upstream_path))
        try:
            for n in self.names:
                for a in [self.maps, self.mounted] if self.m else [self.maps]:
                    a[n][::64].sum()        # every page is there and mapped
            self.table.heading(f"library: {sized(self.s.rows)} rows x {COLUMNS} float32; d = per cent deleted")
            self.load()
            self.lazy()
            self.open_close()
            for n in (100, 1000, 10_000):
                self.take(n)
            for n in (1000, 10_000):
                self.slice(n)
            self.scan()
            if self.s.rows == 1_000_000:
                self.micro()
        finally:
            self.real.close()
            for a in self.arrays.values():
                a.close()
            self.lib.store_close(self.opened)
            del self.maps, self.mounted
            gc.collect()

    def report(self, what, found, library=None, mount=None, flat=True, memory=False):
        """`found` has peers named "<who> <d>"; goals hold for 1M rows, of which performance.md speaks, but are shown for
        all sizes."""
        t, g = self.table, f"library {sized(self.s.rows)}"
        for p in self.s.deleted:
            row = {k.rsplit(" ", 1)[0]: v for k, v in found.items() if k.endswith(f" {p}")}
            d = f"{what}, d={p}"
            t.pair(g, d, row, "library", "numpy on .npy", library if p == 0 else None)
            if memory:
                t.pair(g, d, row, "library", "take in memory", 2.0 if p == 10 and what.startswith("10K") else None)
            t.pair(g, d, row, "mount", "numpy on .npy", mount if p == 0 else None)
            t.pair(g, d, row, "library", "NumPack 0.5.0")
            if p and flat:
                t.pair(g, d, {"library": found[f"library {p}"], "library, d=0": found["library 0"]}, "library",
                       "library, d=0", 1.5)

    def load(self):
        peers = {}
        for p, n in zip(self.s.deleted, self.names):
            peers[f"library {p}"] = local(lambda n=n: binding.load(self.lib, self.path, n.encode(), np.float32, COLUMNS))
            peers[f"numpy on .npy {p}"] = local(lambda n=n: np.load(self.s.npy[n]))
            if self.m:
                peers[f"mount {p}"] = local(lambda n=n: np.load(self.where(n)))
            peers[f"NumPack 0.5.0 {p}"] = self.real.peer("load", n)
        self.report("load all", measure(peers, self.b.rounds), 1.0, 1.45, flat=False)

    def lazy(self):
        def view(n):
            gen = self.lib.generation(self.opened, n)
            self.lib.borrow(gen)
            self.lib.gen_put(gen)
        found = measure({"library": local(lambda: view(b"x0")), "new np.memmap": local(
            lambda: np.load(self.s.npy["x0"], mmap_mode="r")), "NumPack 0.5.0": self.real.peer("lazy", "x0")}, self.b.rounds)
        g = f"library {sized(self.s.rows)}"
        self.table.pair(g, "lazy view", found, "library", "new np.memmap", note="5 foreign calls")
        self.table.pair(g, "lazy view", found, "library", "NumPack 0.5.0")
        for (call, name, _), took in self.b.micro("store", self.s.path, *self.names).items():
            goal = 1e-6 if call == "lazy view" else 60e-6 if name == "x0" else None
            self.table.value(g, f"{call}, d={name[1:]}", "C program", statistics.median(took), goal, min(took), max(took))

    def open_close(self):
        def opened(n):
            store = self.lib.open(self.path)
            gen = self.lib.generation(store, n)
            self.lib.borrow(gen)
            self.lib.gen_put(gen)
            self.lib.store_close(store)
        peers = {}
        for p, n in zip(self.s.deleted, self.names):
            peers[f"library {p}"] = local(lambda n=n: opened(n.encode()))
            peers[f"numpy on .npy {p}"] = local(lambda n=n: np.load(self.s.npy[n], mmap_mode="r"))
            if self.m:
                peers[f"mount {p}"] = local(lambda n=n: np.load(self.where(n), mmap_mode="r"))
            peers[f"NumPack 0.5.0 {p}"] = self.real.peer("open+close", n)
        self.report("open + close", measure(peers, self.b.rounds), 60 / 135, 160 / 135, flat=False)

    def take(self, n):
        peers, what = {}, f"{sized(n)} random rows"
        out = np.empty((n, COLUMNS), np.float32)
        for p, name in zip(self.s.deleted, self.names):
            lists = [self.rng.integers(0, self.s.count(name), n) for _ in range(LISTS)]
            held, on_file, mounted = self.s.logical[name], self.maps[name], self.mounted.get(name)
            peers[f"library {p}"] = local(self.arrays[name].taker(lists, out))
            peers[f"numpy on .npy {p}"] = local(turns(lists, lambda i, a=on_file: a[i]))
            peers[f"take in memory {p}"] = local(turns(lists, lambda i, a=held: np.take(a, i, axis=0)))
            if self.m:
                peers[f"mount {p}"] = local(turns(lists, lambda i, a=mounted: a[i]))
            # Upstream walks the bitmap for every row once some are deleted: about 5e-10 s a row and slot.
            seconds = n * self.s.rows * 6e-10 if p else 0
            if seconds > (1 if self.b.quick else 8):
                self.table.skip(f"{what}, d={p}: NumPack 0.5.0", f"O(N) a row after a drop, about {seconds:.0f} s a call")
            else:
                file = self.b.base / "lists.npy"
                np.save(file, np.array(lists))
                self.real.call("lists", 0, name, n, str(file))
                peers[f"NumPack 0.5.0 {p}"] = self.real.peer("take", name, n, p > 0)
        goal = {100: 3 / 9.3, 1000: 15 / 54, 10_000: 130 / 572}[n]
        self.report(what, measure(peers, self.b.rounds), goal, 1.05, memory=True)

    def slice(self, n):
        peers, at = {}, self.buffer.ctypes.data
        for p, name in zip(self.s.deleted, self.names):
            firsts = [int(f) for f in self.rng.integers(0, max(self.s.count(name) - n, 1), LISTS)]
            a = self.arrays[name]
            peers[f"library {p}"] = local(turns(firsts, lambda f, a=a: a.read(f, n, at)))
            peers[f"numpy on .npy {p}"] = local(turns(firsts, lambda f, a=self.maps[name]: np.array(a[f:f + n])))
            if self.m:
                peers[f"mount {p}"] = local(turns(firsts, lambda f, a=self.mounted[name]: np.array(a[f:f + n])))
            # A slice of upstream's lazy array copies fast only while nothing is deleted.
            peers[f"NumPack 0.5.0 {p}"] = self.real.peer("slice", name, n, self.s.count(name), p > 0)
        self.report(f"slice of {sized(n)} rows", measure(peers, self.b.rounds), {1000: 2 / 3.7, 10_000: 19 / 24}[n], 1.0)

    def scan(self):
        peers, at = {}, self.buffer.ctypes.data

        def by_library(a):
            for first in range(0, a.rows, BLOCK):
                a.read(first, min(BLOCK, a.rows - first), at)

        def by_numpy(a):
            for first in range(0, len(a), BLOCK):
                part = a[first:first + BLOCK]
                np.copyto(self.buffer[:len(part)], part)
        for p, name in zip(self.s.deleted, self.names):
            peers[f"library {p}"] = local(lambda a=self.arrays[name]: by_library(a))
            peers[f"numpy on .npy {p}"] = local(lambda a=self.maps[name]: by_numpy(a))
            if self.m:
                peers[f"mount {p}"] = local(lambda a=self.mounted[name]: by_numpy(a))
            peers[f"NumPack 0.5.0 {p}"] = self.real.peer("scan", name, BLOCK)
        self.report("scan by 10K rows", measure(peers, self.b.rounds), 2000 / 2372, 2500 / 2372, flat=False)


    def micro(self):
        """The same without an interpreter: ours is the library's call, the peer copies the same rows with their slots known
        beforehand."""
        self.table.heading("C program: 1M rows, the library linked in; goals against the same call without deletions")
        found = self.b.micro("rows", self.s.path, *self.names)
        for (call, name, n), took in found.items():
            what = f"{call} of {sized(n)} rows, d={name[1:]}"
            if call == "take":
                self.table.pair("C program", what, {"library": took, "bare loop": found["take_floor", name, n]},
                                "library", "bare loop")
            if call in ("take", "slice") and name != "x0":
                self.table.pair("C program", what, {"library": took, "library, d=0": found[call, "x0", n]}, "library",
                                "library, d=0", 1.5)


class Section2:
    """The mount against the same calls on a plain .npy on the backing filesystem, whose cache is hot."""

    def __init__(self, bench, store, mount):
        self.b, self.s, self.m, self.table = bench, store, mount, bench.table
        self.plain, self.virtual = str(store.npy["x0"]), str(mount.array("x0"))
        self.size = os.stat(self.virtual).st_size
        # O_DIRECT needs an aligned buffer; all readers use the same one.
        self.buffer = mmap.mmap(-1, 16 << 20)
        np.frombuffer(self.buffer, np.uint8)[:] = 1

    def read_all(self, path, chunk, flags=0):
        fd = os.open(path, os.O_RDONLY | flags)
        try:
            view = memoryview(self.buffer)[:chunk]
            start = time.perf_counter()
            while os.readv(fd, [view]):
                pass
            return time.perf_counter() - start
        finally:
            os.close(fd)

    @staticmethod
    def drop(path):
        """Its pages leave the FUSE file's cache; the daemon's own mapping of the data stays hot."""
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def run(self):
        self.table.heading(f"mount: {sized(self.s.rows)} rows ({self.size >> 20} MiB), against a hot plain .npy")
        self.sequential("x0")
        self.sequential("x10")
        self.touch()
        self.rows_hot()
        self.cold()
        self.calls()

    def sequential(self, name):
        plain, virtual = str(self.s.npy[name]), str(self.m.array(name))
        what = "sequential" if name == "x0" else "sequential, 10 % deleted"
        self.read_all(plain, 1 << 20)

        def timed(path, chunk, flags=0):
            return lambda repeat: sum(self.read_all(path, chunk, flags) for _ in range(repeat))
        cold = lambda: self.drop(virtual)  # noqa: E731
        found = measure({"mount": timed(virtual, 1 << 20), "backing fs": timed(plain, 1 << 20)}, self.b.rounds,
                        {"mount": cold, "backing fs": lambda: None})
        self.table.pair("mount", f"{what}, cold, cached", found, "mount", "backing fs", 0.30, True)
        if name == "x0":
            self.check_cold(virtual)
            self.table.skip("sequential, cold, FOPEN_DIRECT_IO", "a read-only mount always caches arrays")
        found = measure({"mount": timed(virtual, 16 << 20, os.O_DIRECT), "backing fs": timed(plain, 16 << 20)},
                        self.b.rounds, {"mount": cold, "backing fs": lambda: None})
        self.table.pair("mount", f"{what}, cold, O_DIRECT 16 MiB", found, "mount", "backing fs",
                        0.75 if name == "x0" else 0.45, True)
        if name == "x0":
            self.read_all(virtual, 1 << 20)
            found = measure({"mount": timed(virtual, 1 << 20), "backing fs": timed(plain, 1 << 20)}, self.b.rounds)
            self.table.pair("mount", f"{what}, hot", found, "mount", "backing fs", 0.60, True)

    def check_cold(self, path):
        """Whether dropping works, by mincore: else "cold" would be a lie."""
        self.read_all(path, 1 << 20)
        before = cached(path)
        self.drop(path)
        after = cached(path)
        print(f"  (FUSE cache before and after dropping it: {before:.0%}, {after:.0%} of the file)", flush=True)

    def touch(self):
        def touch(path):
            with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
                a = np.frombuffer(m, np.uint8)
                a[::4096].sum()
                del a
        touch(self.virtual)
        found = measure({"mount": local(lambda: touch(self.virtual)), "backing fs": local(lambda: touch(self.plain))},
                        self.b.rounds)
        self.table.pair("mount", "touch a new map, hot", found, "mount", "backing fs", 0.75, True)

    def rows_hot(self):
        fds = {k: os.open(p, os.O_RDONLY) for k, p in (("mount", self.virtual), ("backing fs", self.plain))}
        rng = random.Random(1)
        offsets = [rng.randrange(self.s.rows) * 40 + 128 for _ in range(2000)]

        def read(fd):
            for off in offsets:
                os.pread(fd, 40, off)
        found = measure({k: local(lambda fd=fd: read(fd)) for k, fd in fds.items()}, self.b.rounds)
        found = {k: [x / len(offsets) for x in v] for k, v in found.items()}
        self.table.pair("mount", "40-byte row read, hot", found, "mount", "backing fs", 1.05)
        for fd in fds.values():
            os.close(fd)

    def cold(self):
        """Each fault and each row by itself, its latency in a distribution."""
        rng = random.Random(2)
        count = 300
        medians, tails, rows = [], [], []
        for _ in range(self.b.rounds):
            pages = rng.sample(range(1, self.size // 4096), count)
            self.drop(self.virtual)
            with open(self.virtual, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
                m.madvise(mmap.MADV_RANDOM)
                took = []
                for p in pages:
                    start = time.perf_counter()
                    m[p * 4096]
                    took.append(time.perf_counter() - start)
            medians.append(statistics.median(took))
            tails.append(sorted(took)[int(count * 0.99)])
            self.drop(self.virtual)
            fd = os.open(self.virtual, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            took = []
            for p in pages:
                start = time.perf_counter()
                os.pread(fd, 40, p * 4096 + 40)
                took.append(time.perf_counter() - start)
            os.close(fd)
            rows.append(statistics.median(took))
        for what, values, goal in (("cold 4 KiB fault, median", medians, 23e-6), ("cold 4 KiB fault, p99", tails, 30e-6),
                                   ("cold row, median", rows, 20e-6)):
            self.table.value("mount", what, "mount", statistics.median(values), goal, min(values), max(values))

    def calls(self):
        def open_close(path):
            os.close(os.open(path, os.O_RDONLY))
        found = measure({"mount": local(lambda: open_close(self.virtual)), "backing fs": local(
            lambda: open_close(self.plain))}, self.b.rounds)
        self.table.pair("mount", "open + close", found, "mount", "backing fs")
        at = found["mount"]
        self.table.value("mount", "open + close", "mount", statistics.median(at), 18e-6, min(at), max(at))
        found = measure({"mount": local(lambda: os.stat(self.virtual)), "backing fs": local(lambda: os.stat(self.plain))},
                        self.b.rounds)
        self.table.pair("mount", "stat", found, "mount", "backing fs", 1.15)
        memory = resident(self.m.pid)
        self.table.value("mount", "resident memory", "daemon", memory["RssAnon"], 50, unit="MiB",
                         note=f"and {memory['RssFile']:.0f} MiB of mapped files and code")


def cached(path):
    """The part of a file that is in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        a = np.frombuffer(m, np.uint8)
        pages = np.zeros(-(-len(a) // mmap.PAGESIZE), np.uint8)
        if libc.mincore(a.ctypes.data, len(a), pages.ctypes.data) != 0:
            return float("nan")
        part = float((pages & 1).mean())
        del a
    return part


GROUPS = ("library", "flat", "open", "mount")


def main():
    args = parse(__doc__, GROUPS, quick="3 rounds, up to 1M rows")
    started = time.monotonic()
    with workplace(args.out, "work") as base:
        b = Bench(args.build.resolve(), base, args.quick)
        facts = {**machine(base), "numpackfs": b.lib.version().decode(), "ctypes_call_ns": round(b.lib.call_cost() * 1e9)}
        print("  ".join(f"{k}: {v}" for k, v in facts.items()))
        print(f"{b.rounds} rounds, interleaved; ratio: the median, then the least and the greatest of the rounds. Ratios "
              "are of times (less is better) where the goal is <=, of speeds where it is >=.\n"
              "The library is called through ctypes, which is part of its times, and fills a buffer of the caller; numpy "
              "makes new arrays.")
        run_groups(b, GROUPS, args.only)
    rows = b.table.rows
    met = [r.met() for r in rows]
    print(f"\n{met.count('met')} goals met, {met.count('short')} short, in {time.monotonic() - started:.0f} s")
    result = {"machine": facts, "rounds": b.rounds, "quick": args.quick, "skipped": b.table.skipped,
              "rows": [{**vars(r), "met": r.met()} for r in rows]}
    (args.out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "bench.svg").write_text(svg(b.table, f"numpackfs {facts['numpackfs']}: reading. {facts['cpu']}, "
                                                     f"Linux {facts['kernel']}, {facts['filesystem']}, "
                                                     f"numpy {facts['numpy']}"))


main()
