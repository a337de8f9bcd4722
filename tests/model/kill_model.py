"""What the workers of the kill loop do, and what the arrays must be after each step. A worker has arrays of its own: w<ID>_x
(appended, dropped, replaced, compacted), w<ID>_s (saved over) and w<ID>_y (renamed over w<ID>_s, cloned)."""

import os

import numpy as np

WIDTH = 5


def rows(who, n, count):
    """The rows that step n of a worker makes: no other step makes the same."""
    x = np.arange(count * WIDTH, dtype="i8").reshape(count, WIDTH)
    return x + (who * 1_000_000 + n) * 1000


class Model:
    def __init__(self, who):
        self.who = who
        self.arrays = {}

    def name(self, letter):
        return f"w{self.who}_{letter}"

    def choose(self, rng):
        x = self.arrays.get(self.name("x"))
        if x is None:
            return ("save", "x", 20)
        kinds = ["append", "append", "save", "rename", "replace", "clone", "in_place", "view", "batch", "batch", "block", "fsync", "sync"]
        kinds += ["drop", "drop", "compact"] if len(x) > 10 else ["append"] * 3
        what = str(rng.choice(kinds))
        if what == "append":
            return (what, "x", int(rng.integers(1, 150)))
        if what == "drop":
            first = int(rng.integers(0, len(x) - 1))
            return (what, first, min(first + int(rng.integers(1, 60)), len(x) - 1))
        if what in ("batch", "block"):
            return (what, "x", int(rng.integers(1, 100)))
        if what == "view":
            return (what, 0, len(x))
        if what in ("replace", "in_place"):
            first = int(rng.integers(0, len(x)))
            return (what, first, min(first + int(rng.integers(1, 12 if what == "replace" else 2)), len(x)))
        return (what, "s", int(rng.integers(1, 400)))

    def apply(self, n, op):
        what, a, b = op[0], op[1], int(op[2])
        x = self.name("x")
        if what == "save":
            self.arrays[self.name(a)] = rows(self.who, n, b)
        elif what == "rename":
            self.arrays[self.name("s")] = rows(self.who, n, b)
        elif what == "append":
            self.arrays[x] = np.concatenate([self.arrays[x], rows(self.who, n, b)])
        elif what == "drop":
            self.arrays[x] = np.delete(self.arrays[x], slice(int(a), b), axis=0)
        elif what in ("batch", "block"):     # see perform()
            new = rows(self.who, n, b)
            self.arrays[x] = np.concatenate([self.arrays[x], new])[1:]
            self.arrays[self.name("s")] = new
            if what == "batch":
                self.arrays[x] = self.arrays[x].copy()
                self.arrays[x][0] = new[0]
                self.arrays[self.name("y")] = new
        elif what in ("replace", "in_place", "view"):
            y = self.arrays[x].copy()
            y[int(a):b] = rows(self.who, n, b - int(a))
            self.arrays[x] = y
        elif what == "clone":
            self.arrays[self.name("y")] = self.arrays[x]


def write_once(path, data, flags=os.O_WRONLY):
    fd = os.open(path, flags)
    try:
        done = os.write(fd, data)
        assert done == len(data), (path, done, len(data))
    finally:
        os.close(fd)


def saved(x):
    import io
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


def perform_batch(path, m, n, b):
    """Rows are added, one is dropped, one is written in place, one array is saved and one cloned: a transaction's directory."""
    t, new = os.path.join(path, ".numpack", "batch", f"t{m.who}"), rows(m.who, n, b)
    x = os.path.join(t, ".numpack", "arrays", m.name("x"))
    os.mkdir(t)
    write_once(os.path.join(x, "append"), saved(new))
    write_once(os.path.join(x, "drop"), b"0\n")
    np.save(os.path.join(t, m.name("s") + ".npy"), new)
    with open(os.path.join(t, m.name("x") + ".npy"), "r+b", buffering=0) as f:
        assert os.pwrite(f.fileno(), new[:1].tobytes(), 128) == WIDTH * 8
    temp = os.path.join(t, ".tmp.npy")
    np.save(temp, new)
    os.replace(temp, os.path.join(t, m.name("y") + ".npy"))
    write_once(os.path.join(t, "ctl"), b"commit\n")


def perform_block(path, m, n, b):
    """The like as lines of ctl."""
    data = saved(rows(m.who, n, b))
    lines = [b"begin", b"append %s npy=%d" % (m.name("x").encode(), len(data)) + b"\n" + data + b"drop " + m.name("x").encode() + b" rows=0",
             b"save %s npy=%d" % (m.name("s").encode(), len(data)) + b"\n" + data + b"commit\n"]
    write_once(os.path.join(path, ".numpack", "ctl"), b"\n".join(lines))


def perform(path, m, n, op):
    what, a, b = op[0], op[1], int(op[2])
    x = m.name("x")
    control = os.path.join(path, ".numpack", "arrays", x)
    if what == "save":
        np.save(os.path.join(path, m.name(a) + ".npy"), rows(m.who, n, b))
    elif what == "rename":
        temp = os.path.join(path, f".tmp{m.who}.npy")
        np.save(temp, rows(m.who, n, b))
        os.replace(temp, os.path.join(path, m.name("s") + ".npy"))
    elif what == "append":
        write_once(os.path.join(control, "append"), saved(rows(m.who, n, b)))
    elif what == "drop":
        write_once(os.path.join(control, "drop"), f"{a}:{b}\n".encode())
    elif what == "replace":
        write_once(os.path.join(control, "replace"), f"rows={a}:{b}\n".encode() + saved(rows(m.who, n, b - int(a))))
    elif what == "view":
        np.save(os.path.join(control, "view", f"{a}:{b}.npy"), rows(m.who, n, b - int(a)))
    elif what == "batch":
        perform_batch(path, m, n, b)
    elif what == "block":
        perform_block(path, m, n, b)
    elif what == "in_place":
        fd = os.open(os.path.join(path, x + ".npy"), os.O_WRONLY)
        try:
            data = rows(m.who, n, b - int(a)).tobytes()
            assert os.pwrite(fd, data, 128 + int(a) * WIDTH * 8) == len(data)
        finally:
            os.close(fd)
    elif what == "compact":
        write_once(os.path.join(control, "compact"), b"1 force\n")
    elif what == "clone":
        y = os.path.join(path, m.name("y") + ".npy")
        if m.name("y") in m.arrays:
            with open(os.path.join(path, x + ".npy"), "rb") as f:
                data = f.read()
            with open(y, "wb", buffering=0) as f:
                f.write(data)
        else:
            write_once(os.path.join(control, "clone"), (m.name("y") + "\n").encode())
    elif what == "fsync":
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    elif what == "sync":
        write_once(os.path.join(path, ".numpack", "sync"), b"1\n")
    else:
        raise ValueError(what)
