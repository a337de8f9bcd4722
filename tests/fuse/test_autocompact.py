"""-o autocompact: arrays with many deleted rows get their space back by themselves, and nobody notices but du."""

import time

import numpy as np
import pytest

from harness import wait_for
from npkwrite import write_store


@pytest.fixture
def mounted(mount, tmp_path):
    x = np.random.default_rng(1).standard_normal((1000, 4)).astype("f4")
    write_store(tmp_path / "s", {"x": x, "y": x[:100]})
    with mount(tmp_path / "s", "autocompact=20", ro=False) as m:
        yield m, x


def physical(m, name):
    return int(m.control(name).joinpath("info").read_text().split("physical_rows")[1].strip(' ":=\t').split()[0].rstrip(","))


def test_at_the_threshold(mounted):
    m, x = mounted
    m.control("y").joinpath("drop").write_text("0:10\n")
    m.control("x").joinpath("drop").write_text("0:199\n")
    time.sleep(2.5)     # two looks
    assert physical(m, "x") == 1000
    m.control("x").joinpath("drop").write_text("0\n")
    wait_for("x is compacted", lambda: physical(m, "x") == 800)
    assert physical(m, "y") == 100
    np.testing.assert_array_equal(m.load("x"), x[200:])
    np.testing.assert_array_equal(m.load("y"), x[10:100])


def test_not_under_a_writer(mounted):
    m, x = mounted
    old = m.load("x", mmap_mode="r+")
    m.control("x").joinpath("drop").write_text("500:\n")
    time.sleep(2.5)
    assert physical(m, "x") == 1000
    old[:] = 7
    del old
    wait_for("x is compacted", lambda: physical(m, "x") == 500)
    np.testing.assert_array_equal(m.load("x"), np.full((500, 4), 7, "f4"))


def test_all_rows(mounted):
    m, x = mounted
    m.control("y").joinpath("drop").write_text("0:\n")
    wait_for("y is compacted", lambda: physical(m, "y") == 0)
    assert m.load("y").shape == (0, 4)
