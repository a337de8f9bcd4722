"""data.csv: one line a row, and every number reads back to the same value."""

import io
import os

import numpy as np
import pytest

from harness import ARRAYS, GOLDEN, same
from npkwrite import Spec, write_store

NUMBERS = np.array([0.0, -0.0, 1.0, 0.1, 1 / 3, 1e300, -1e-300, 5e-324, np.finfo("f8").max, np.inf, -np.inf, np.nan, 2.0**53 + 1])


def rows_of(path):
    return [line.split(",") for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def csv(tmp_path_factory, watchdog):
    from harness import Mounter

    base = tmp_path_factory.mktemp("csv")
    rng = np.random.default_rng(11)
    store, specs = write_store(base / "s.npk", {
        "f8": NUMBERS, "f4": rng.standard_normal((50, 3)).astype("f4"), "f2": rng.standard_normal(40).astype("f2"),
        "i8": np.array([-2**63, 2**63 - 1, 0, -1]), "u8": np.array([2**64 - 1, 0], "u8"),
        "b": np.array([[True, False], [False, True]]), "deep": np.arange(24, dtype="i2").reshape(2, 3, 4),
        "holes": Spec(np.arange(200).reshape(100, 2), deleted=list(range(0, 100, 3))),
        "c": np.array([1 + 2j, -1.5 - 0.25j, 0]), "none": np.zeros((0, 3)),
        "long": Spec(rng.integers(0, 1 << 40, (40_000, 5)), deleted=list(range(100, 200)))})
    mounter = Mounter(base / "mounts", watchdog, life=3600)
    m = mounter.start(store)
    yield m, {n: s.logical() for n, s in specs.items()}
    mounter.stop(m)


@pytest.mark.parametrize("name", ["f8", "f4", "f2"])
def test_floats_read_back_to_the_same_bits(name, csv):
    m, arrays = csv
    text = rows_of(m.control(name) / "data.csv")
    x = arrays[name]
    got = np.array([[np.dtype(x.dtype).type(field) for field in line] for line in text], x.dtype).reshape(x.shape)
    same(np.where(np.isnan(got), np.array(np.nan, x.dtype), got), np.where(np.isnan(x), np.array(np.nan, x.dtype), x))


@pytest.mark.parametrize("name", ["i8", "u8", "deep", "holes", "b", "long"])
def test_integers(name, csv):
    m, arrays = csv
    x = arrays[name]
    got = [[int(field) for field in line] for line in rows_of(m.control(name) / "data.csv")]
    assert got == x.reshape(len(x), -1).astype(object).astype(int if x.dtype == bool else object).tolist()


def test_complex(csv):
    m, arrays = csv
    got = [complex(line[0]) for line in rows_of(m.control("c") / "data.csv")]
    assert got == arrays["c"].tolist()


def test_no_rows_no_lines(csv):
    m, _ = csv
    assert (m.control("none") / "data.csv").read_bytes() == b""


def test_numpy_reads_it(csv):
    m, arrays = csv
    same(np.loadtxt(m.control("f4") / "data.csv", delimiter=",", dtype="f4"), arrays["f4"])
    same(np.genfromtxt(m.control("holes") / "data.csv", delimiter=",", dtype="i8"), arrays["holes"])


def test_any_size_of_reads_gives_the_same_text(csv):
    m, _ = csv
    path = m.control("long") / "data.csv"
    whole = path.read_bytes()
    for size in (1000, 4095, 65536, 1 << 20):
        with open(path, "rb", buffering=0) as f:
            assert b"".join(iter(lambda: f.read(size), b"")) == whole, size


def test_two_readers_of_one_text(csv):
    """Every handle has a place of its own."""
    m, _ = csv
    path = m.control("long") / "data.csv"
    whole = path.read_bytes()
    with open(path, "rb", buffering=0) as a, open(path, "rb", buffering=0) as b:
        got_a, got_b = b"", b""
        while True:
            x, y = a.read(70_000), b.read(31_000)
            got_a, got_b = got_a + x, got_b + y
            if not x and not y:
                break
        assert got_a == whole and got_b == whole


def test_going_back_in_the_text(csv):
    """A stream cannot know where byte n of the text is without making it; it must be right or an error, never wrong bytes."""
    m, _ = csv
    path = m.control("f4") / "data.csv"
    whole = path.read_bytes()
    fd = os.open(path, os.O_RDONLY)
    assert os.pread(fd, 50, 0) == whole[:50]
    for off in (100, 10, 0):
        try:
            got = os.pread(fd, 50, off)
        except OSError:
            continue
        assert got == whole[off:off + 50], off
    os.close(fd)


def test_every_golden_array(golden_mount):
    for a in ARRAYS:
        want = np.load(GOLDEN / a["expected_npy"])
        if want.ndim == 0 or want.size == 0:
            continue
        text = rows_of(golden_mount(a["store"]).control(a["array"]) / "data.csv")
        flat = want.reshape(len(want), -1)
        assert len(text) == len(want) and all(len(line) == flat.shape[1] for line in text), a
        if want.dtype.kind in "biu":
            assert [[int(f) for f in line] for line in text] == flat.astype(object).astype(
                int if want.dtype == bool else object).tolist(), a
        else:
            kind = complex if want.dtype.kind == "c" else float
            got = np.array([[kind(f) for f in line] for line in text]).astype(want.dtype)
            assert np.array_equal(got, flat, equal_nan=True), a


def test_it_is_a_stream(csv):
    m, _ = csv
    assert (m.control("long") / "data.csv").stat().st_size == 0
    assert len(io.StringIO((m.control("long") / "data.csv").read_text()).readlines()) == 39_900
