"""Reading in every way that the kernel offers, on an array large enough for many pages, with and without deleted rows."""

import ctypes
import mmap
import os
import random
import threading

import numpy as np
import pytest

from harness import saved, scaled
from npkwrite import Spec, write_store

ROWS, COLUMNS = 200_000, 7      # 28-byte rows: none of them is aligned to a page


@pytest.fixture(scope="module")
def big(tmp_path_factory, watchdog):
    from harness import Mounter

    base = tmp_path_factory.mktemp("big")
    rng = np.random.default_rng(1)
    data = rng.integers(-2**31, 2**31, size=(ROWS, COLUMNS)).astype("i4")
    scattered = np.flatnonzero(rng.random(ROWS) < 0.1).tolist()
    blocks = [r for first in range(1000, ROWS, 20_000) for r in range(first, first + 7_000)]
    store, specs = write_store(base / "big.npk", {
        "whole": data,
        "scattered": Spec(data, deleted=scattered),
        "blocks": Spec(data, deleted=blocks),
        "half": Spec(data, deleted=list(range(0, ROWS, 2))),
        "segments": Spec(data, deleted=scattered, segment_rows=30_011),
    })
    mounter = Mounter(base / "mounts", watchdog, life=3600)
    m = mounter.start(store)
    yield m, {name: saved(spec.logical()) for name, spec in specs.items()}
    mounter.stop(m)


NAMES = pytest.mark.parametrize("name", ["whole", "scattered", "blocks", "half", "segments"])


@NAMES
def test_whole_file(name, big):
    m, want = big
    assert m.array(name).read_bytes() == want[name]


@NAMES
def test_pread_anywhere(name, big):
    """Any offset, any length, also across and beyond the end: the bytes that are there, and no more."""
    m, want = big
    rnd = random.Random(2)
    fd = os.open(m.array(name), os.O_RDONLY)
    try:
        size = len(want[name])
        for _ in range(scaled(400)):
            off = rnd.choice([rnd.randrange(size + 10), rnd.randrange(300), size - rnd.randrange(300), 128, 127, 0])
            n = rnd.choice([1, 2, 3, 28, 4096, 4097, rnd.randrange(100_000), 1 << 20, 3_000_001])
            assert os.pread(fd, n, off) == want[name][off:off + n], (off, n)
    finally:
        os.close(fd)


@NAMES
def test_o_direct_anywhere(name, big):
    m, want = big
    rnd = random.Random(3)
    fd = os.open(m.array(name), os.O_RDONLY | os.O_DIRECT)
    buf = mmap.mmap(-1, 4 << 20)
    try:
        size = len(want[name])
        for _ in range(scaled(150)):
            off = rnd.choice([rnd.randrange(size), 0, 1, 127, 128, 4096, size - 1, size, size + 1])
            n = rnd.choice([1, 511, 512, 4096, 1 << 20, (1 << 20) + 1, 4 << 20])
            got = os.preadv(fd, [memoryview(buf)[:n]], off)
            assert buf[:got] == want[name][off:off + n], (off, n)
    finally:
        os.close(fd)


@NAMES
def test_a_private_map_is_writable_and_private(name, big):
    m, want = big
    with open(m.array(name), "rb") as f:
        private = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        shared = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    assert private[:] == want[name]
    private[200:300] = b"\xAA" * 100
    private[-1:] = b"\x55"
    assert shared[:] == want[name] and m.array(name).read_bytes() == want[name]
    assert private[200:300] == b"\xAA" * 100
    private.close()
    shared.close()


@NAMES
def test_a_map_shows_zeroes_after_the_end_of_the_last_page(name, big):
    m, want = big
    size = len(want[name])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    with open(m.array(name), "rb") as f:
        at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, f.fileno(), 0)
    rest = -size % mmap.PAGESIZE
    assert ctypes.string_at(at + size, rest) == bytes(rest)
    libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))


def test_many_threads_read_what_is_there(big):
    """Eight readers, each its own handle and order, see the right bytes all the time."""
    m, want = big
    wrong = []

    def reader(seed):
        rnd = random.Random(seed)
        name = rnd.choice(sorted(want))
        data = want[name]
        with open(m.array(name), "rb", buffering=0) as f:
            for _ in range(scaled(100)):
                off, n = rnd.randrange(len(data)), rnd.randrange(200_000)
                got = os.pread(f.fileno(), n, off)
                if got != data[off:off + n]:
                    wrong.append((seed, name, off, n))

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_random_rows_of_a_map(big):
    m, want = big
    for name in want:
        got = np.load(m.array(name), mmap_mode="r")
        assert got.tobytes() == want[name][128:]
        rows = np.random.default_rng(4).integers(0, len(got), 2_000)
        reference = np.frombuffer(want[name][128:], "i4").reshape(-1, COLUMNS)
        assert np.array_equal(got[rows], reference[rows]), name


def test_lseek_reports_no_holes(big):
    m, want = big
    with open(m.array("scattered"), "rb", buffering=0) as f:
        assert os.lseek(f.fileno(), 1000, os.SEEK_DATA) == 1000
        assert os.lseek(f.fileno(), 1000, os.SEEK_HOLE) == len(want["scattered"])
        assert os.lseek(f.fileno(), 0, os.SEEK_END) == len(want["scattered"])
