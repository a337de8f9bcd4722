"""Writing, measured against what people use instead: numpy on plain files of the same filesystem and the real NumPack 0.5.0.

    bench_write.py --build build/release --out build/bench [--quick] [--only GROUP]

Groups: save, change, flat, mount. As bench.py: peers are timed in turn, in rounds; a row shows the median of the rounds'
ratios, their least and greatest, and the goal. Nothing is synced by any peer. The table goes to stdout, DIR gets
bench_write.json.
"""

import contextlib
import ctypes
import gc
import itertools
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))
import lib as binding  # noqa: E402
from measure import Table, Upstream, local, measure, parse, run_groups, workplace  # noqa: E402

COLUMNS, ROW = 10, 40
GROUPS = ("save", "change", "flat", "mount")
REAL = "NumPack 0.5.0"
VOID, U64, SIZE = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t


class Library(binding.Library):
    """And the calls that change a store."""

    def __init__(self, path):
        super().__init__(path)
        so = ctypes.CDLL(str(path))
        for name, arguments in (
                ("npk_store_save", [VOID, ctypes.c_char_p, ctypes.c_uint, VOID, VOID, VOID]),
                ("npk_array_append", [VOID, VOID, U64, VOID]),
                ("npk_array_drop_rows", [VOID, VOID, SIZE, VOID, VOID]),
                ("npk_array_replace", [VOID, VOID, SIZE, VOID, ctypes.c_uint, VOID]),
                ("npk_array_replace_range", [VOID, U64, U64, VOID, ctypes.c_uint, VOID]),
                ("npk_array_compact", [VOID, VOID]),
                ("npk_store_fsync", [VOID, VOID]),
                ("npk_store_sync", [VOID, VOID])):
            f = getattr(so, name)
            f.restype, f.argtypes = ctypes.c_int, arguments
            setattr(self, name[4:], f)

    def writable(self, path):
        self.check(self.store_open(self.out_at, os.fsencode(path), 6, self.err_at))
        return self.out.value

    def array(self, store, name):
        self.check(self.array_get(self.out_at, store, name.encode(), self.err_at))
        return self.out.value

    def save(self, store, name, x):
        shape = binding.Shape(x.ndim, (U64 * 32)(*x.shape))
        self.check(self.store_save(store, name.encode(), 10, ctypes.byref(shape), x.ctypes.data, self.err_at))


class Native:
    """bench_write.c on a store: the library without Python's own cost of a call."""

    def __init__(self, program, store):
        self.process = subprocess.Popen([program, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, verb, name, repeat, rows, first=0, step=0):
        self.process.stdin.write(f"{verb} {name} {repeat} {rows} {first} {step}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def peer(self, verb, name, rows, first=0, step=0):
        return lambda repeat: self.call(verb, name, repeat, rows, first, step)

    def close(self):
        self.process.stdin.close()
        if self.process.wait() != 0:
            raise RuntimeError("bench_write failed")


def write_all(path, data, flags=os.O_WRONLY):
    fd = os.open(path, flags)
    try:
        assert os.write(fd, data) == len(data)
    finally:
        os.close(fd)


class Bench:
    def __init__(self, build, base, quick):
        self.base, self.quick, self.rounds = base, quick, 3 if quick else 7
        self.lib, self.table = Library(build / "libnumpack.so"), Table()
        self.native = build.resolve() / "tests/bench/bench_write"
        os.environ["NPK_BUILD"] = str(build)
        import harness  # mounts that are surely gone afterwards
        self.watchdog = harness.Watchdog()
        self.mounter = harness.Mounter(base / "mounts", self.watchdog, life=3600)
        self.saved = harness.saved
        self.rng = np.random.default_rng(5)
        self.x = self.rng.random((1_000_000, COLUMNS), dtype=np.float32)

    def close(self):
        self.watchdog.close()

    @contextlib.contextmanager
    def opened(self, what, *arrays, mount=True):
        """(library's store, its Mount, the real one, a Native): each a store of its own with these arrays."""
        stores = [self.base / f"{what}_{who}.npk" for who in ("library", "mount", "native", "real")]
        for s in stores[:3]:
            store = self.lib.writable(s)
            for name, x in arrays:
                self.lib.save(store, name, x)
            self.lib.check(self.lib.store_sync(store, self.lib.err_at))
            self.lib.store_close(store)
        real = Upstream(HERE / "upstream_write.py")
        real.call("open", 0, str(stores[3]))
        for name, x in arrays:
            np.save(self.base / "real.npy", x)
            real.call("save", 1, name, str(self.base / "real.npy"))
        store, native = self.lib.writable(stores[0]), Native(self.native, stores[2])
        try:
            with self.mounter(stores[1], ro=False) as m:
                yield store, m, real, native
                gc.collect()
        finally:
            self.lib.store_close(store)
            native.close()
            real.close()
            for s in stores:
                shutil.rmtree(s, ignore_errors=True)

    def pairs(self, group, what, found, goals):
        """goals: {(who, peer): goal}; pairs without one are shown as well when both were measured."""
        for (who, peer), goal in goals.items():
            self.table.pair(group, what, found, who, peer, goal)

    # --- saving a million rows -----------------------------------------------------------------------------------------

    def save(self):
        self.table.heading("save: a new array of 1M x 10 float32, and over one")
        count = itertools.count()
        with self.opened("save") as (store, m, real, _):
            np.save(self.base / "in.npy", self.x)
            plain = self.base / "plain"
            plain.mkdir()
            for what in ("a new array", "over an array"):
                name = (lambda: f"n{next(count)}") if what == "a new array" else (lambda: "same")
                found = measure({
                    "library": local(lambda: self.lib.save(store, name(), self.x)),
                    "mount": local(lambda: np.save(m.array(name()), self.x)),
                    "numpy on .npy": local(lambda: np.save(plain / f"{name()}.npy", self.x)),
                    REAL: lambda n: real.call("save", n, name(), str(self.base / "in.npy"))},
                    self.rounds, {k: (lambda: None) for k in ("library", "mount", "numpy on .npy", REAL)})
                self.pairs("save", what, found, {("library", "numpy on .npy"): 1.35, ("mount", "numpy on .npy"): 1.6,
                                                 ("library", REAL): None})
            shutil.rmtree(plain)

    # --- changing one ----------------------------------------------------------------------------------------------------

    def change(self):
        self.table.heading("change: one array of 1M x 10 float32")
        rows = self.x[:100].copy()
        together = list(range(5000, 5100))
        scattered = np.sort(self.rng.choice(900_000, 100, replace=False)).astype(np.int64)
        with self.opened("change", ("x", self.x), ("d", self.x), ("y", self.x)) as (store, m, real, native):
            a, at = self.lib.array(store, "x"), rows.ctypes.data
            npy = self.base / "x.npy"
            np.save(npy, self.x)
            plain = np.load(npy, mmap_mode="r+")
            control = m.control("x")
            stream = self.saved(rows)
            np.save(self.base / "rows.npy", rows)
            real.call("rows", 0, str(self.base / "rows.npy"))
            check = self.lib.check

            def assign(where, index):
                where[index] = rows
            mapped = np.load(m.array("x"), mmap_mode="r+")
            mapped[::64].sum()
            found = measure({
                "library": native.peer("replace", "x", 100, 5000),
                "library, by ctypes": local(lambda: check(self.lib.array_replace_range(a, 5000, 100, at, 0, self.lib.err_at))),
                "mount, r+ map": local(lambda: assign(mapped, slice(5000, 5100))),
                "mount, command": local(lambda: write_all(control / "replace", b"5000:5100\n" + stream)),
                "numpy memmap": local(lambda: assign(plain, slice(5000, 5100))),
                REAL: real.peer("replace", "x", together)}, self.rounds)
            self.pairs("change", "replace 100 rows together", found, {
                ("library", "numpy memmap"): 1.0, ("library, by ctypes", "numpy memmap"): None,
                ("mount, r+ map", "numpy memmap"): None,
                ("mount, command", "numpy memmap"): None, ("library", REAL): None})
            line = ",".join(map(str, scattered)).encode() + b"\n"
            index = scattered.ctypes.data
            found = measure({
                "library": native.peer("replace", "x", 100, 0, 9001),
                "library, by ctypes": local(lambda: check(self.lib.array_replace(a, index, 100, at, 0, self.lib.err_at))),
                "mount, r+ map": local(lambda: assign(mapped, scattered)),
                "mount, command": local(lambda: write_all(control / "replace", line + stream)),
                "numpy memmap": local(lambda: assign(plain, scattered))}, self.rounds)
            self.pairs("change", "replace 100 rows scattered", found, {
                ("library", "numpy memmap"): 1.7, ("library, by ctypes", "numpy memmap"): None,
                ("mount, r+ map", "numpy memmap"): 1.05,
                ("mount, command", "numpy memmap"): None})
            for who, goal in (("library", None), ("mount, command", None)):
                self.table.value("change", "replace 100 rows scattered", who, statistics.median(found[who]),
                                 12e-6 if who == "library" else 600e-6)

            lists = [np.sort(self.rng.choice(900_000, 10, replace=False)).astype(np.int64) for _ in range(100)]

            def hundred_native(repeat):
                return native.call("replace", "x", 100 * repeat, 10, 0, 90001)

            def hundred_library():
                for i in lists:
                    check(self.lib.array_replace(a, i.ctypes.data, 10, at, 0, self.lib.err_at))

            def hundred(where):
                for i in lists:
                    where[i] = rows[:10]
            found = measure({"library": hundred_native, "library, by ctypes": local(hundred_library),
                             "mount, r+ map": local(lambda: hundred(mapped)),
                             "numpy memmap": local(lambda: hundred(plain))}, self.rounds)
            self.pairs("change", "100 x modify 10 rows", found, {("library", "numpy memmap"): 1.0,
                                                                ("library, by ctypes", "numpy memmap"): None,
                                                                ("mount, r+ map", "numpy memmap"): 2.7})
            del mapped
            gc.collect()
            self.append(a, m, real, native, rows, npy)
            self.drop(store, m, real, native)
            self.lib.array_put(a)
            del plain

    def append(self, a, m, real, native, rows, npy):
        stream, raw, at = self.saved(rows), rows.tobytes(), rows.ctypes.data
        # What somebody has had open is in the kernel's cache, which is told of the rows before the append is answered.
        fd, unseen = (os.open(m.control(name) / "append", os.O_WRONLY) for name in ("x", "y"))

        def tail():
            with open(npy, "ab") as f:
                f.write(raw)
        found = measure({
            "library": native.peer("append", "x", 100),
            "library, by ctypes": local(lambda: self.lib.check(self.lib.array_append(a, at, 100, self.lib.err_at))),
            "mount, open command": local(lambda: os.write(unseen, stream)),
            "mount, open command, a cached array": local(lambda: os.write(fd, stream)),
            "mount, >>": local(lambda: write_all(m.array("x"), raw, os.O_WRONLY | os.O_APPEND)),
            "file tail": local(tail),
            REAL: real.peer("append", "x")}, self.rounds)
        os.close(fd)
        os.close(unseen)
        self.pairs("change", "append 100 rows", found, {
            ("library", REAL): 0.65, ("library, by ctypes", REAL): None, ("mount, open command", REAL): 1.7,
            ("mount, open command, a cached array", REAL): 1.7, ("library", "file tail"): None, ("mount, >>", "file tail"): None})

    def drop(self, store, m, real, native):
        x = self.x
        self.lib.save(store, "d", x)
        np.save(m.array("d"), x)
        real.call("save", 1, "d", str(self.base / "x.npy"))
        a = self.lib.array(store, "d")
        step = itertools.count()
        names = ["library", "mount", "numpy: load, delete, save", REAL, "library, by ctypes"]

        def some():
            return np.arange(100, dtype=np.int64) * 1000 + next(step) % 500

        def by_ctypes(n):
            rows = some()
            start = time.perf_counter()
            self.lib.check(self.lib.array_drop_rows(a, rows.ctypes.data, 100, None, self.lib.err_at))
            return time.perf_counter() - start

        def by_mount(n):
            line = ",".join(map(str, some())).encode() + b"\n"
            start = time.perf_counter()
            write_all(m.control("d") / "drop", line)
            return time.perf_counter() - start

        def by_numpy(n):
            rows = some()
            start = time.perf_counter()
            np.save(self.base / "d.npy", np.delete(np.load(self.base / "d.npy"), rows, axis=0))
            return time.perf_counter() - start
        np.save(self.base / "d.npy", x)
        found = measure({"library": native.peer("drop", "d", 100, 0, 1000), names[4]: by_ctypes, "mount": by_mount,
                         names[2]: by_numpy, REAL: lambda n: real.call("drop", 1, "d", some().tolist())}, self.rounds,
                        {k: (lambda: None) for k in names})
        self.pairs("change", "drop 100 rows", found, {
            ("library", names[2]): 0.0026, (names[4], names[2]): None, ("mount", names[2]): 0.0052, ("library", REAL): None})

        tenth = np.arange(0, 1_000_000, 10, dtype=np.int64)
        sel = b"::10\n"

        def ready_library():
            nonlocal a
            self.lib.array_put(a)
            self.lib.save(store, "d", x)
            a = self.lib.array(store, "d")
            self.lib.check(self.lib.array_drop_rows(a, tenth.ctypes.data, len(tenth), None, self.lib.err_at))

        def ready_mount():
            np.save(m.array("d"), x)
            write_all(m.control("d") / "drop", sel)

        def ready_real():
            real.call("update", 1, "d")
            real.call("save", 1, "d", str(self.base / "x.npy"))
            real.call("drop_tenth", 1, "d", len(x))
        found = measure({
            "library": local(lambda: self.lib.check(self.lib.array_compact(a, self.lib.err_at))),
            "mount": local(lambda: write_all(m.control("d") / "compact", b"1\n")),
            REAL: real.peer("update", "d")}, self.rounds, {"library": ready_library, "mount": ready_mount, REAL: ready_real})
        self.pairs("change", "compact after 10 % dropped", found, {("library", REAL): 0.43, ("mount", REAL): None})
        self.lib.array_put(a)

    # --- flat in the number of arrays and rows ---------------------------------------------------------------------------

    def flat(self):
        self.table.heading("flat: append and drop of 100 rows by the library, against the smallest store")
        sizes = [(1, 100_000), (1, 1_000_000), (1, 10_000_000), (1000, 1000), (10_000, 100)]
        if not self.quick:
            sizes.insert(3, (1, 100_000_000))
        peers, opened, drops = {}, [], {}
        for arrays, n in sizes:
            path = self.base / f"flat_{arrays}_{n}.npk"
            path.mkdir()
            import npkwrite
            specs = {f"x{i}": npkwrite.Spec(np.broadcast_to(np.float32(0), (n, COLUMNS))) for i in range(arrays)}
            for name in specs:
                with open(path / f"data_{name}.npkd", "wb") as f:
                    f.truncate(n * ROW)
            npkwrite.replace_file(path / "metadata.npkm", npkwrite.metadata(specs))
            native = Native(self.native, path)
            opened.append((native, path))
            what = f"{arrays} arrays, {n:,} rows"
            peers[what] = native.peer("append", f"x{arrays - 1}", 100)
            if arrays == 1:
                drops[what] = native.peer("drop", "x0", 100, 0, n // 200)
        first = f"1 arrays, {sizes[0][1]:,} rows"
        found = measure(peers, self.rounds)
        for what in list(peers)[1:]:
            self.table.pair("flat", f"append: {what}", found, what, first, 1.3)
        found = measure(drops, self.rounds, {k: (lambda: None) for k in drops})
        for what in list(drops)[1:]:
            self.table.pair("flat", f"drop: {what}", found, what, first, 1.5)
        for native, path in opened:
            native.close()
            shutil.rmtree(path)

    # --- performance.md section 2 ------------------------------------------------------------------------------------------

    def mount(self):
        self.table.heading("mount: writing 1M x 10 float32 (40 MB) in place, against a plain .npy on the backing filesystem")
        with self.opened("mount", ("x", self.x)) as (store, m, real, native):
            del store, real, native
            plain, virtual = self.base / "m.npy", m.array("x")
            np.save(plain, self.x)
            data, header = self.x.tobytes(), 128

            def sequential(path, flags):
                fd = os.open(path, flags)
                try:
                    for at in range(0, len(data), 1 << 20):
                        os.pwrite(fd, data[at:at + (1 << 20)], header + at)
                finally:
                    os.close(fd)
            for how, flags, goal in (("O_RDWR", os.O_RDWR, 0.26), ("O_WRONLY", os.O_WRONLY, 0.39)):
                found = measure({"mount": local(lambda: sequential(virtual, flags)),
                                 "backing fs": local(lambda: sequential(plain, flags))}, self.rounds)
                self.table.pair("mount", f"sequential write, {how}", found, "mount", "backing fs", goal, speed=True)
            spots = [int(n) * 4096 + header for n in self.rng.integers(0, len(data) // 4096 - 1, 64)]
            page = data[:4096]
            fds = {"mount": os.open(virtual, os.O_WRONLY), "backing fs": os.open(plain, os.O_WRONLY)}

            def pages(fd):
                for at in spots:
                    os.pwrite(fd, page, at)
            found = measure({k: local(lambda fd=fd: pages(fd)) for k, fd in fds.items()}, self.rounds)
            self.table.pair("mount", "64 x 4 KiB pwrite, O_WRONLY", found, "mount", "backing fs")
            each = [t / len(spots) for t in found["mount"]]
            self.table.value("mount", "4 KiB pwrite, O_WRONLY", "mount", statistics.median(each), 22e-6, min(each), max(each))
            for fd in fds.values():
                os.close(fd)
            rows = self.x[:100].tobytes()
            tails = {"mount": os.open(virtual, os.O_WRONLY | os.O_APPEND), "backing fs": os.open(plain, os.O_WRONLY | os.O_APPEND)}
            found = measure({k: local(lambda fd=fd: os.write(fd, rows)) for k, fd in tails.items()}, self.rounds)
            self.table.pair("mount", "append 100 rows, O_WRONLY", found, "mount", "backing fs")
            self.table.value("mount", "append 100 rows, O_WRONLY", "mount", statistics.median(found["mount"]), 26e-6,
                             min(found["mount"]), max(found["mount"]))
            for fd in tails.values():
                os.close(fd)


def main():
    args = parse(__doc__, GROUPS, quick="3 rounds, up to 10M rows")
    with workplace(args.out, "work-write") as base:
        b = Bench(args.build.resolve(), base, args.quick)
        run_groups(b, GROUPS, args.only)
    met = [r.met() for r in b.table.rows]
    print(f"\n{met.count('met')} goals met, {met.count('short')} short")
    result = {"rounds": b.rounds, "quick": args.quick, "rows": [{**vars(r), "met": r.met()} for r in b.table.rows]}
    (args.out / "bench_write.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
