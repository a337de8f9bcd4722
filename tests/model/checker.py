"""Random operations on a mount against arrays in memory.

A script is a list of (operation, array, number): the number seeds whatever else an operation chooses, from the state that it
finds. So a script stays meaningful when steps are taken out of it, and a failing one can be made short.

The model knows slots: an array is a buffer of slots and the list of those that are its rows. A map that is held keeps its own
list; whoever writes rows in place writes slots, and every list that has them shows it."""

import errno
import gc
import os
import shutil
import time

import numpy as np

from engine import Library, Mounted, Refused, write_once
from harness import Mount, saved
from npkwrite import DTYPES

NAMES = ["a", "b", "c.d", "\u00fc", "two words"]
ROWS_MAX = 400
HELD_MAX = 4
COPIES = ("replace", "pwrite", "map_write", "grow")     # what writes in place: inside a transaction the array is copied first
INSIDE = ["save", "append", "append", "drop", "drop", "replace", "pwrite", "map_write", "grow", "truncate", "compact", "clone", "rename",
          "remove", "refused"]


class Slots:
    def __init__(self, rows):
        self.buf = np.array(rows, order="C")


class Array:
    def __init__(self, rows):
        self.slots, self.rows = Slots(rows), np.arange(len(rows))

    def value(self):
        return self.slots.buf[self.rows]

    def add(self, more):
        first = len(self.slots.buf)
        self.slots.buf = np.concatenate([self.slots.buf, more])
        self.rows = np.concatenate([self.rows, np.arange(first, first + len(more))])

    def write_bytes(self, at, data):
        x = self.value()
        flat = x.reshape(-1).view("u1")
        flat[at:at + len(data)] = np.frombuffer(data, "u1")
        self.slots.buf[self.rows] = x


class Inner(Array):
    """What a transaction sees of an array. Rows that are added to it, or dropped, are the array's at the commit; bytes written in
    place are those of a copy."""

    def __init__(self, array):
        self.array, self.rows, self.slots, self.copied = array, array.rows.copy(), Slots(array.slots.buf), False

    def published(self):
        """The array after the commit: whoever holds a map of the slots goes on sharing them, unless there is a copy."""
        a = self.array
        if not self.copied:
            a.slots.buf, a.rows = self.slots.buf, self.rows
            return a
        out = Array(self.slots.buf)
        out.rows = self.rows
        return out


class Held:
    """A map of the rows as they were when it was made."""

    def __init__(self, name, array, mapped, writable):
        self.name, self.slots, self.rows, self.map, self.writable = name, array.slots, array.rows.copy(), mapped, writable

    def check(self):
        equal(self.map, self.slots.buf[self.rows], f"the held map of {self.name!r}")


class Wrong(AssertionError):
    pass


def equal(got, want, what):
    if got.dtype != want.dtype or got.shape != want.shape:
        raise Wrong(f"{what}: {got.dtype}{got.shape}, not {want.dtype}{want.shape}")
    if got.tobytes() != want.tobytes():
        flat = lambda x: np.frombuffer(x.tobytes(), "u1").reshape(len(x), -1)    # noqa: E731
        rows = np.flatnonzero((flat(got) != flat(want)).any(1))
        raise Wrong(f"{what}: {len(rows)} of {len(want)} rows differ, the first is {rows[0]}")


def some(rng, dtype, shape):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape).copy()


def dressed(rng, x):
    """The same values in another order of bytes or elements."""
    how = rng.integers(0, 5)
    if how == 0:
        return np.asfortranarray(x)
    if how == 1 and x.dtype.itemsize > 1 and x.dtype.kind not in "fc":   # a swap of NaNs may not keep their bits
        return x.astype(x.dtype.newbyteorder(">"))
    if how == 2:
        return np.repeat(x, 2, axis=0)[::2]
    return x


def expect(code, call, *args):
    try:
        call(*args)
    except Refused as e:
        if e.args[0] != errno.errorcode[code]:
            raise Wrong(f"{e.args}, not {errno.errorcode[code]}") from e
    except OSError as e:
        if e.errno != code:
            raise Wrong(f"{e!r}, not {errno.errorcode[code]}") from e
    else:
        raise Wrong(f"{call} {args!r:.100} worked, {errno.errorcode[code]} wanted")


class Run:
    def __init__(self, mounter, base):
        self.mounter, self.base = mounter, base
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        self.store = base / "s.npk"
        self.arrays, self.held, self.told = {}, [], []
        self.door = Mounted(mounter, self.store)

    def tell(self, text):
        self.told.append(text)

    def path(self, name):
        return self.door.m.array(name)

    def fd(self, name, flags):
        return os.open(self.path(name), flags)

    def rows(self, rng, a, most=None):
        n = len(a.rows)
        return rng.choice(n, int(rng.integers(1, min(n, most or n) + 1)), replace=False)

    def is_written(self, a):
        return any(h.writable and h.slots is a.slots for h in self.held)

    # --- operations: each begins with what it needs ---

    def save(self, rng, name):
        shape = (int(rng.integers(0, 120)), *(int(n) for n in rng.integers(1, 5, rng.integers(0, 3))))
        x = some(rng, rng.choice(DTYPES), shape)
        way = rng.choice(["np.save", "replace", "open_memmap", "pieces", "cp"])
        self.tell(f"save {name!r} {x.dtype}{x.shape} by {way}")
        if way == "replace":
            temp = self.door.m.path / ".tmp_x"
            with open(temp, "wb") as f:
                np.save(f, dressed(rng, x))
            os.replace(temp, self.path(name))
        elif way == "open_memmap" and x.size:
            m = np.lib.format.open_memmap(self.path(name), "w+", dtype=x.dtype, shape=x.shape)
            m[:] = x
            m.flush()
            del m
        elif way == "pieces":
            data, at = saved(x), 0
            with open(self.path(name), "wb", buffering=0) as f:
                while at < len(data):
                    n = int(rng.integers(1, len(data)))
                    f.write(data[at:at + n])
                    at += n
        elif way == "cp":
            np.save(self.base / "out.npy", x)
            shutil.copyfile(self.base / "out.npy", self.path(name))
        else:
            np.save(self.path(name), dressed(rng, x))
        self.arrays[name] = Array(x)

    def map_write(self, rng, name):
        a = self.arrays[name]
        if not a.value().size:
            return
        rows = self.rows(rng, a, 20)
        new = some(rng, a.slots.buf.dtype, (len(rows), *a.slots.buf.shape[1:]))
        self.tell(f"map r+ {name!r} rows {rows.tolist()}")
        m = np.load(self.path(name), mmap_mode="r+")
        m[rows] = new
        if rng.random() < 0.5:
            m.flush()
        del m
        a.slots.buf[a.rows[rows]] = new

    def pwrite(self, rng, name):
        a = self.arrays[name]
        total = a.value().nbytes
        if not total:
            return
        at = int(rng.integers(0, total))
        n = int(rng.integers(1, total - at + 1))
        data = some(rng, "?", n).tobytes() if a.slots.buf.dtype == bool else rng.bytes(n)
        flags = os.O_RDWR if rng.random() < 0.5 else os.O_WRONLY
        self.tell(f"pwrite {name!r} bytes {at}+{n} {'O_RDWR' if flags == os.O_RDWR else 'O_WRONLY'}")
        fd = self.fd(name, flags)
        try:
            assert os.pwrite(fd, data, len(saved(a.value())) - total + at) == n
        finally:
            os.close(fd)
        a.write_bytes(at, data)

    def grow(self, rng, name):
        """A write that begins among the rows and goes on behind the last, or one byte far behind."""
        a = self.arrays[name]
        row = a.slots.buf[:1].nbytes if len(a.slots.buf) else 0
        if not row or len(a.rows) > ROWS_MAX or not len(a.rows):
            return
        header, n = len(saved(a.value())) - a.value().nbytes, int(rng.integers(1, 30))
        fd = self.fd(name, os.O_RDWR)
        try:
            if rng.random() < 0.5:
                first = int(rng.integers(0, len(a.rows)))
                x = some(rng, a.slots.buf.dtype, (len(a.rows) - first + n, *a.slots.buf.shape[1:]))
                self.tell(f"pwrite {name!r} rows {first} to {len(a.rows) + n}, {n} are new")
                assert os.pwrite(fd, x.tobytes(), header + first * row) == x.nbytes
                a.slots.buf[a.rows[first:]] = x[:len(a.rows) - first]
                a.add(x[len(a.rows) - first:])
            else:
                self.tell(f"pwrite {name!r}: a zero at the end of {n} new rows")
                os.pwrite(fd, b"\0", header + (len(a.rows) + n) * row - 1)
                a.add(np.zeros((n, *a.slots.buf.shape[1:]), a.slots.buf.dtype))
        finally:
            os.close(fd)

    def append(self, rng, name):
        a = self.arrays[name]
        if len(a.rows) > ROWS_MAX or not a.slots.buf[:1].nbytes and not len(a.slots.buf):
            return
        x = some(rng, a.slots.buf.dtype, (int(rng.integers(1, 70)), *a.slots.buf.shape[1:]))
        way = rng.choice(["append", "append.raw", "O_APPEND", "twice"])
        self.tell(f"append {len(x)} rows to {name!r} by {way}")
        if way == "O_APPEND":
            data, at = x.tobytes(), 0
            fd = self.fd(name, os.O_WRONLY | os.O_APPEND)
            try:
                while at < len(data):
                    n = int(rng.integers(1, len(data) + 1))
                    at += os.write(fd, data[at:at + n])
            finally:
                os.close(fd)
        elif way == "twice":
            write_once(self.door.m.control(name) / "append", saved(x) + saved(dressed(rng, x)))
            a.add(x)
        else:
            write_once(self.door.m.control(name) / way, saved(x) if way == "append" else x.tobytes())
        a.add(x)

    def truncate(self, rng, name):
        a = self.arrays[name]
        row = a.slots.buf[:1].nbytes
        if not row:
            return
        header = len(saved(a.value())) - a.value().nbytes
        n = int(rng.integers(0, len(a.rows) + 10))
        with_handle = not any(h.slots is a.slots for h in self.held) and rng.random() < 0.5
        self.tell(f"truncate {name!r} from {len(a.rows)} to {n} rows{' by ftruncate' if with_handle else ''}")
        if with_handle:
            fd = self.fd(name, os.O_RDWR)
            try:
                os.ftruncate(fd, header + n * row)
            finally:
                os.close(fd)
        else:
            os.truncate(self.path(name), header + n * row)
        if n <= len(a.rows):
            a.rows = a.rows[:n]
        else:
            a.add(np.zeros((n - len(a.rows), *a.slots.buf.shape[1:]), a.slots.buf.dtype))

    def drop(self, rng, name):
        a = self.arrays[name]
        if not len(a.rows):
            return
        way = rng.choice(["drop", "view", "slice"])
        if way == "drop":
            rows = self.rows(rng, a)
            self.tell(f"drop {name!r} rows {rows.tolist()}")
            self.door.drop(name, rows - len(a.rows) if rng.random() < 0.2 else rows)
        else:
            first, step = int(rng.integers(0, len(a.rows))), int(rng.integers(1, 4))
            stop = min(first + int(rng.integers(1, 30)), len(a.rows))
            rows = np.arange(first, stop, step)
            self.tell(f"drop {name!r} {first}:{stop}:{step} by {way}")
            if way == "view":
                os.unlink(self.door.m.view(name, f"{first}:{stop}:{step}"))
            else:
                write_once(self.door.m.control(name) / "drop", f"{first}:{stop}:{step}\n".encode())
        a.rows = np.delete(a.rows, rows)

    def replace(self, rng, name):
        a = self.arrays[name]
        if not a.value().size:
            return
        rows = self.rows(rng, a, 40)
        x = some(rng, a.slots.buf.dtype, (len(rows), *a.slots.buf.shape[1:]))
        way = rng.choice(["replace", "atomic", "view", "columns"])
        self.tell(f"replace {name!r} rows {rows.tolist()} by {way}")
        if way == "view":
            np.save(self.door.m.view(name, "+".join(map(str, rows))), dressed(rng, x))
        elif way == "columns" and a.slots.buf.ndim > 1:
            columns = rng.choice(a.slots.buf.shape[1], int(rng.integers(1, a.slots.buf.shape[1] + 1)), replace=False)
            part = a.slots.buf[a.rows[rows]]
            part[:, columns] = x[:, columns]
            np.save(self.door.m.view(name, "+".join(map(str, rows)) + "@" + "+".join(map(str, columns))), x[:, columns])
            x = part
        else:
            self.door.replace(name, rows, x, way == "atomic")
        a.slots.buf[a.rows[rows]] = x

    def compact(self, rng, name):
        a = self.arrays[name]
        moves = len(a.rows) != len(a.slots.buf)
        if self.is_written(a):
            self.tell(f"compact {name!r}, which a map writes")
            if moves:
                expect(errno.EBUSY, self.door.compact, name)
            return
        self.tell(f"compact {name!r}")
        try:
            self.door.compact(name)
        except Refused as e:
            # A map of rows that were saved over counts as long as it is held.
            if e.args[0] != "EBUSY" or not any(h.writable for h in self.held):
                raise
            self.tell("  is refused")
            return
        if moves:
            self.arrays[name] = Array(a.value())

    def clone(self, rng, name):
        to = str(rng.choice(NAMES))
        way = rng.choice(["clone", "cp"])
        self.tell(f"clone {name!r} to {to!r} by {way}")
        if to == name:
            return
        if way == "clone" and to in self.arrays:
            expect(errno.EEXIST, self.door.clone, name, to)
            return
        if way == "clone":
            self.door.clone(name, to)
        else:
            shutil.copyfile(self.path(name), self.path(to))
        self.arrays[to] = Array(self.arrays[name].value())

    def rename(self, rng, name):
        to = str(rng.choice(NAMES))
        if to == name:
            return
        if to in self.arrays and rng.random() < 0.5:
            self.tell(f"exchange {name!r} and {to!r}")
            self.door.exchange(name, to)
            self.arrays[name], self.arrays[to] = self.arrays[to], self.arrays[name]
        else:
            self.tell(f"rename {name!r} to {to!r}")
            self.door.rename(name, to)
            self.arrays[to] = self.arrays.pop(name)

    def remove(self, rng, name):
        self.tell(f"unlink {name!r}")
        self.door.remove(name)
        del self.arrays[name]

    def refused(self, rng, name):
        """Nonsense changes nothing."""
        a, c = self.arrays[name], self.door.m.control(name)
        n = len(a.rows)
        self.tell(f"nonsense to {name!r}")
        expect(errno.ERANGE, write_once, c / "drop", f"{n}\n".encode())
        expect(errno.EINVAL, write_once, c / "drop", b"0:1 x\n")
        expect(errno.EINVAL, write_once, c / "append", saved(np.zeros((1, *a.slots.buf.shape[1:], 2), a.slots.buf.dtype)))

    def hold(self, rng, name):
        a = self.arrays[name]
        if not a.value().size:
            return
        if len(self.held) >= HELD_MAX:
            self.held.pop(int(rng.integers(0, len(self.held))))
        mode = "r" if rng.random() < 0.6 else "r+"
        self.tell(f"hold a map {mode} of {name!r}")
        self.held.append(Held(name, a, np.load(self.path(name), mmap_mode=mode), mode == "r+"))

    def write_held(self, rng, name):
        writable = [h for h in self.held if h.writable]
        if not writable:
            return
        h = writable[int(rng.integers(0, len(writable)))]
        rows = rng.choice(len(h.rows), int(rng.integers(1, min(len(h.rows), 10) + 1)), replace=False)
        self.tell(f"write rows {rows.tolist()} of the held map of {h.name!r}")
        x = some(rng, h.slots.buf.dtype, (len(rows), *h.slots.buf.shape[1:]))
        h.map[rows] = x
        h.map.flush()
        h.slots.buf[h.rows[rows]] = x

    def let_go(self, rng, name):
        self.tell("let go of all maps")
        self.held.clear()

    def fsync(self, rng, name):
        self.tell("fsync")
        self.door.fsync()

    def sync(self, rng, name):
        self.tell("sync")
        self.door.sync()

    def again(self):
        self.door = Mounted(self.mounter, self.store)
        self.check_all()

    def transaction(self, rng, name):
        """Changes in a transaction's directory, which is a mount like any: seen inside at once, outside after the commit."""
        m, outside, held, way = self.door.m, self.arrays, self.held, str(rng.choice(["commit", "commit", "commit", "rmdir", "abort", "kill"]))
        self.tell("mkdir .numpack/batch/t")
        at = m.control() / "batch" / "t"
        os.mkdir(at)
        inside = {n: Inner(a) for n, a in outside.items()}
        self.door.m, self.arrays, self.held = Mount(at, m.store, m.process, m.log), inside, []
        try:
            for _ in range(int(rng.integers(1, 8))):
                what, name = str(rng.choice(INSIDE)), str(rng.choice(NAMES))
                what = what if name in self.arrays else "save"
                told = len(self.told)
                getattr(self, what)(rng, name)
                if what in COPIES and len(self.told) > told and name in self.arrays:
                    self.arrays[name].copied = True
                self.check_all()
        finally:
            self.door.m, self.arrays, self.held = m, outside, held
        self.check_all()
        self.tell(f"end of the transaction: {way}")
        if way == "commit":
            write_once(at / "ctl", b"commit\n")
            self.arrays = {n: a.published() if isinstance(a, Inner) else a for n, a in inside.items()}
        elif way == "rmdir":
            os.rmdir(at)
        elif way == "abort":
            write_once(at / "ctl", b"abort\n")
        else:
            self.kill(rng, name)
        self.check_all()

    def remount(self, rng, name):
        self.tell("unmount and mount")
        self.held.clear()
        self.door.close()
        self.again()

    def kill(self, rng, name):
        self.tell("kill -9 and mount")
        self.held.clear()
        gc.collect()
        self.door.kill()
        self.again()

    def by_library(self, rng, name):
        """The same store by the library, with nothing mounted."""
        self.tell("unmount; by the library:")
        self.held.clear()
        self.door.close()
        lib = Library(self.store, self.base / "engine")
        try:
            for _ in range(int(rng.integers(1, 4))):
                name = str(rng.choice(sorted(self.arrays))) if self.arrays else "a"
                what = rng.choice(["save", "append", "drop", "replace", "compact"])
                self.tell(f"  {what} {name!r}")
                a = self.arrays.get(name)
                if what == "save" or a is None:
                    x = some(rng, rng.choice(DTYPES), (int(rng.integers(0, 50)), 3))
                    lib.save(name, x)
                    self.arrays[name] = Array(x)
                elif what == "append":
                    x = some(rng, a.slots.buf.dtype, (5, *a.slots.buf.shape[1:]))
                    lib.append(name, x)
                    a.add(x)
                elif what == "compact":
                    lib.compact(name)
                    self.arrays[name] = Array(a.value())
                elif len(a.rows):
                    rows = self.rows(rng, a, 10)
                    if what == "drop":
                        lib.drop(name, rows)
                        a.rows = np.delete(a.rows, rows)
                    else:
                        x = some(rng, a.slots.buf.dtype, (len(rows), *a.slots.buf.shape[1:]))
                        lib.replace(name, rows, x)
                        a.slots.buf[a.rows[rows]] = x
            if rng.random() < 0.3:
                self.tell("  its process is killed")
                lib.kill()
            else:
                lib.close()
        finally:
            if lib.alive:
                lib.kill()
        self.again()

    # --- checking ---

    def check(self, name):
        if name not in self.arrays:
            return
        want = self.arrays[name].value()
        equal(np.load(self.path(name)), want, repr(name))
        if want.size:
            equal(np.load(self.path(name), mmap_mode="r"), want, f"the map of {name!r}")
        size = os.stat(self.path(name)).st_size
        if size != len(saved(want)):
            raise Wrong(f"{name!r}: {size} bytes, not {len(saved(want))}")

    def check_all(self):
        got, want = sorted(os.listdir(self.door.m.path)), sorted(f"{n}.npy" for n in self.arrays)
        if got != want:
            raise Wrong(f"the mount has {got}, not {want}")
        for name in self.arrays:
            self.check(name)
        for h in self.held:
            h.check()

    def step(self, what, name, number):
        rng = np.random.default_rng(number)
        if name not in self.arrays and what not in ("transaction", "save", "kill", "remount", "sync", "fsync", "by_library", "let_go", "write_held"):
            what = "save"
        getattr(self, what)(rng, name)
        self.check(name)
        for h in self.held:
            h.check()

    def end(self):
        self.held.clear()
        gc.collect()
        if self.door.alive:
            self.door.kill()


WEIGHTS = {"save": 8, "map_write": 8, "pwrite": 8, "grow": 5, "append": 10, "truncate": 4, "drop": 9, "replace": 9, "compact": 5,
           "clone": 4, "rename": 4, "remove": 2, "refused": 2, "hold": 8, "write_held": 8, "let_go": 2, "fsync": 2, "sync": 2,
           "remount": 1, "kill": 2, "by_library": 1, "transaction": 4}


def make(seed, steps):
    rng = np.random.default_rng(seed)
    kinds, weights = list(WEIGHTS), np.array(list(WEIGHTS.values()), float)
    return [(str(rng.choice(kinds, p=weights / weights.sum())), str(rng.choice(NAMES)), int(rng.integers(0, 1 << 31)))
            for _ in range(steps)]


def run(script, mounter, base):
    """None, or (the number of steps done, what was wrong, what was done)."""
    r = Run(mounter, base)
    done = 0
    try:
        for done, step in enumerate(script):
            r.step(*step)
            if done % 25 == 24:
                r.check_all()
        done = len(script)
        r.check_all()
        r.tell("unmount and mount at the end")
        r.held.clear()
        r.door.close()
        r.again()
        return None
    except Exception as e:      # whatever went wrong
        return done + 1, f"{type(e).__name__}: {e}", r.told[:]
    finally:
        r.end()


def shrink(script, mounter, base, seconds):
    """The shortest failing script that leaving out parts finds within the time."""
    deadline = time.monotonic() + seconds
    best, found = script, None
    part = max(1, len(best) // 2)
    while time.monotonic() < deadline:
        at, shorter = 0, False
        while at < len(best) and time.monotonic() < deadline:
            tried = best[:at] + best[at + part:]
            failure = run(tried, mounter, base) if tried else None
            if failure:
                best, found, shorter = tried[:failure[0]], failure, True
            else:
                at += part
        if part == 1 and not shorter:
            break
        part = part if shorter else max(1, part // 2)
    return best, found
