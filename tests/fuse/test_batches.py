"""batches/<n>/<i>.npy: the i-th block of n rows; all blocks together are the array."""

import errno
import os

import numpy as np
import pytest

from harness import expect_error, same, saved
from npkwrite import Spec, write_store


@pytest.fixture(scope="module")
def batched(tmp_path_factory, watchdog):
    from harness import Mounter

    base = tmp_path_factory.mktemp("batches")
    rng = np.random.default_rng(9)
    store, specs = write_store(base / "s.npk", {
        "x": Spec(rng.random((103, 4)).astype("f4")),
        "holes": Spec(rng.integers(0, 99, 130), deleted=sorted(rng.choice(130, 60, False).tolist())),
        "none": np.zeros((0, 3), "i2"),
        "gone": Spec(np.zeros((4, 3), "i2"), deleted=[0, 1, 2, 3]),
    })
    mounter = Mounter(base / "mounts", watchdog, life=3600)
    m = mounter.start(store)
    yield m, {n: s.logical() for n, s in specs.items()}
    mounter.stop(m)


@pytest.mark.parametrize("n", [1, 7, 64, 70, 102, 103, 104, 1_000_000])
@pytest.mark.parametrize("name", ["x", "holes", "none", "gone"])
def test_blocks(name, n, batched):
    m, arrays = batched
    x = arrays[name]
    base = m.control(name) / "batches" / str(n)
    count = -(-len(x) // n)
    assert sorted(os.listdir(base)) == sorted(f"{i}.npy" for i in range(count))
    for i in range(count):
        want = x[i * n:(i + 1) * n]
        assert (base / f"{i}.npy").stat().st_size == len(saved(want))
        same(np.load(base / f"{i}.npy"), want)
    if count:
        same(np.load(base / f"{count - 1}.npy", mmap_mode="r"), x[(count - 1) * n:])
        same(np.concatenate([np.load(base / f"{i}.npy", mmap_mode="r") for i in range(count)]), x)
    for beyond in (count, count + 1, 10**6):
        expect_error(errno.ENOENT, os.stat, base / f"{beyond}.npy")


@pytest.mark.parametrize("wrong", ["0", "-1", "x", "1x", "01", "+1", "1.0", "99999999999999999999999"])
def test_sizes_that_are_none(wrong, batched):
    m, _ = batched
    expect_error(errno.ENOENT, os.stat, m.control("x") / "batches" / wrong)


@pytest.mark.parametrize("wrong", ["x.npy", "-1.npy", "00.npy", "0", "0.txt", ".npy", "1e1.npy", "99999999999999999999.npy"])
def test_blocks_that_are_none(wrong, batched):
    m, _ = batched
    expect_error(errno.ENOENT, os.stat, m.control("x") / "batches" / "10" / wrong)


def test_a_walk_over_the_batches_of_one_size(batched, tmp_path):
    m, arrays = batched
    got = [np.load(os.path.join(d, f)) for d, _, files in os.walk(m.control("x") / "batches" / "10")
           for f in sorted(files, key=lambda f: int(f[:-4]))]
    same(np.concatenate(got), arrays["x"])


def test_the_directory_of_batches_lists_none(batched):
    """Any number could be listed; only those that a user types exist."""
    m, _ = batched
    assert os.listdir(m.control("x") / "batches") == []
