"""One file, written in every way that a file can be, against an array of bytes: as fsx does, with rows for the unit in which
it grows and shrinks. And readers beside writers: whatever a reader gets must be one of the states that were there while it
read. NPK_FSX_STEPS=20000 makes the first that long."""

import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

from harness import same, saved, scaled

STEPS = int(os.environ.get("NPK_FSX_STEPS", scaled(400)))
WIDTH, ROWS_MAX = 24, 600   # bytes of a row, six int32


class File:
    def __init__(self, path, rng):
        self.path, self.rng, self.told = path, rng, []
        self.rows = np.frombuffer(rng.bytes(50 * WIDTH), "i4").reshape(50, 6).copy()
        np.save(path, self.rows)
        self.header = len(saved(self.rows)) - self.rows.nbytes

    def span(self):
        at = int(self.rng.integers(0, self.rows.nbytes))
        return at, int(self.rng.integers(1, self.rows.nbytes - at + 1))

    def put(self, at, data):
        self.rows.reshape(-1).view("u1")[at:at + len(data)] = np.frombuffer(data, "u1")

    def pwrite(self, flags=os.O_RDWR):
        at, n = self.span()
        data = self.rng.bytes(n)
        self.told.append(("pwrite", at, n))
        fd = os.open(self.path, flags)
        try:
            assert os.pwrite(fd, data, self.header + at) == n
        finally:
            os.close(fd)
        self.put(at, data)

    def pwrite_direct(self):
        self.pwrite(os.O_WRONLY)

    def map_write(self):
        at, n = self.span()
        data = self.rng.bytes(n)
        self.told.append(("map", at, n))
        fd = os.open(self.path, os.O_RDWR)
        with mmap.mmap(fd, self.header + self.rows.nbytes) as m:
            os.close(fd)
            m[self.header + at:self.header + at + n] = data
            if self.rng.random() < 0.5:
                m.flush()
        self.put(at, data)

    def pread(self):
        at, n = self.span()
        self.told.append(("pread", at, n))
        fd = os.open(self.path, os.O_RDONLY)
        try:
            got = os.pread(fd, n, self.header + at)
        finally:
            os.close(fd)
        assert got == self.rows.tobytes()[at:at + n], self.told[-30:]

    def append(self):
        if len(self.rows) > ROWS_MAX:
            return
        data = self.rng.bytes(WIDTH * int(self.rng.integers(1, 60)))
        self.told.append(("append", len(data)))
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            assert os.write(fd, data) == len(data)
        finally:
            os.close(fd)
        self.rows = np.concatenate([self.rows, np.frombuffer(data, "i4").reshape(-1, 6)])

    def beyond(self):
        """From among the rows to behind the last, or a hole."""
        if len(self.rows) > ROWS_MAX:
            return
        first = int(self.rng.integers(0, len(self.rows) + 20))
        last = max(first, len(self.rows)) + int(self.rng.integers(1, 20))
        data = self.rng.bytes((last - first) * WIDTH)
        self.told.append(("beyond", first, last))
        fd = os.open(self.path, os.O_RDWR)
        try:
            assert os.pwrite(fd, data, self.header + first * WIDTH) == len(data)
        finally:
            os.close(fd)
        self.rows = np.concatenate([self.rows, np.zeros((last - len(self.rows), 6), "i4")])
        self.put(first * WIDTH, data)

    def truncate(self):
        n = int(self.rng.integers(1, len(self.rows) + 10))
        self.told.append(("truncate", n))
        if self.rng.random() < 0.5:
            os.truncate(self.path, self.header + n * WIDTH)
        else:
            fd = os.open(self.path, os.O_RDWR)
            try:
                os.ftruncate(fd, self.header + n * WIDTH)
            finally:
                os.close(fd)
        more = np.zeros((max(0, n - len(self.rows)), 6), "i4")
        self.rows = np.concatenate([self.rows[:n], more])

    def fsync(self):
        fd = os.open(self.path, os.O_RDWR)
        os.fsync(fd)
        os.close(fd)

    def step(self):
        ways = [self.pwrite, self.pwrite_direct, self.map_write, self.pread, self.append, self.beyond, self.truncate, self.fsync]
        ways[int(self.rng.choice(len(ways), p=[.18, .15, .2, .18, .12, .07, .07, .03]))]()

    def check(self):
        try:
            same(np.load(self.path), self.rows)
            same(np.load(self.path, mmap_mode="r"), self.rows)
        except AssertionError as e:
            raise AssertionError(f"{e}\nafter {self.told[-40:]}") from e


@pytest.mark.timeout(max(200, STEPS))
@pytest.mark.parametrize("seed", range(2))
def test_a_file_is_what_was_written_to_it(mount, tmp_path, seed):
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        f = File(m.array("x"), np.random.default_rng(seed))
        for i in range(STEPS):
            f.step()
            if i % 5 == 0:
                f.check()
        f.check()
    with mount(tmp_path / "s.npk") as m:
        same(m.load("x"), f.rows)


# --- a history with witnesses ---------------------------------------------------------------------------------------------

# The writer makes numbered states, of which each can be told from its rows alone: state k is a run of rows, all of value
# of the number of the last save, numbered without a gap as they were appended. Drops take rows off the front. It says "k" before and
# "k done" after each change, by a counter in a shared file.
WRITER = """
import os, sys, struct, time, mmap, numpy as np
path, clock, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
x, c = os.path.join(path, "x.npy"), os.path.join(path, ".numpack/arrays/x/")
fd = os.open(clock, os.O_RDWR); m = mmap.mmap(fd, 32)
def say(name, data):
    fd = os.open(c + name, os.O_WRONLY)
    try: assert os.write(fd, data) == len(data)
    finally: os.close(fd)
epoch, first, last = 1, 0, 10
states = [(1, 0, 10)]
rng = np.random.default_rng(n)
while not (m[16] and m[24]): time.sleep(0.001)    # both readers are at work
for k in range(1, n + 1):
    what = rng.choice(["append", "drop", "compact", "save"], p=[.5, .3, .1, .1])
    if what == "drop" and last - first < 5: what = "append"
    new = (epoch, first, last)
    if what == "append": new = (epoch, first, last + int(rng.integers(1, 40)))
    if what == "drop": new = (epoch, first + int(rng.integers(1, last - first)), last)
    if what == "save": new = (epoch + 1, 0, int(rng.integers(1, 300)))
    states.append(new)
    m[0:8] = struct.pack("<Q", k)
    rows = lambda e, a, b: np.stack([np.full(b - a, e), np.arange(a, b)], 1).astype("i8")
    if what == "append": say("append.raw", rows(epoch, last, new[2]).tobytes())
    if what == "drop": say("drop", f"0:{new[1] - first}\\n".encode())
    if what == "compact": say("compact", b"1 force\\n")
    if what == "save": np.save(x, rows(*new))
    epoch, first, last = new
    m[8:16] = struct.pack("<Q", k)
import json; print(json.dumps(states))
"""
READER = """
import json, sys, struct, mmap, os, io, numpy as np
path, clock, n, me = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
fd = os.open(clock, os.O_RDWR); m = mmap.mmap(fd, 32)
got = []
while True:
    done, = struct.unpack("<Q", m[8:16])
    name = os.path.join(path, "x.npy")
    if len(got) % 3 == 0:
        with open(name, "rb", buffering=0) as f:
            data = f.read()
        x = np.load(io.BytesIO(data))
    elif len(got) % 3 == 1:
        with open(name, "rb") as f:    # np.load(mmap_mode="r") opens the name twice: another generation may come between
            np.lib.format.read_magic(f)
            shape, _, dtype = np.lib.format.read_array_header_1_0(f)
            x = np.array(np.memmap(f, dtype, "r", offset=f.tell(), shape=shape)) if shape[0] else np.empty(shape, dtype)
    else:
        x = np.load(name)
    begun, = struct.unpack("<Q", m[0:8])
    rows_ok = len(x) == 0 or bool((x[:, 0] == x[0, 0]).all() and (x[:, 1] == np.arange(x[0, 1], x[0, 1] + len(x))).all())
    got.append((done, begun, rows_ok, [int(x[0, 0]), int(x[0, 1]), int(x[0, 1]) + len(x)] if len(x) else None))
    m[16 + 8 * me] = 1
    if done >= n: break
print(json.dumps(got))
"""


@pytest.mark.parametrize("threads", [1, 4])
def test_a_reader_gets_a_state_that_was_there_while_it_read(mount, tmp_path, threads):
    import json
    n = scaled(300)
    clock = tmp_path / "clock"
    clock.write_bytes(bytes(32))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with mount(tmp_path / "s.npk", "create", f"threads={threads}", ro=False) as m:
        np.save(m.array("x"), np.stack([np.full(10, 1), np.arange(10)], 1).astype("i8"))
        args = [str(m.path), str(clock), str(n)]
        readers = [subprocess.Popen([sys.executable, "-c", READER, *args, str(i)], **pipes) for i in range(2)]
        writer = subprocess.Popen([sys.executable, "-c", WRITER, *args], **pipes)
        out, err = writer.communicate(timeout=100)
        assert writer.returncode == 0, err[-2000:]
        states = json.loads(out)
        reads = 0
        for r in readers:
            out, err = r.communicate(timeout=100)
            assert r.returncode == 0, err[-2000:]
            for done, begun, rows_ok, got in json.loads(out):
                reads += 1
                assert rows_ok, f"between states {done} and {begun} a reader got rows of different states: {got}"
                assert got in states[done:begun + 1], f"a reader got {got}, none of {states[done:begun + 1]}"
        assert reads > 2
