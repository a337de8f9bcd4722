"""The examples of contrib/python/examples run on a mount; what they print is what numpy and each library's own way say."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from numpackfs import NumPack

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def digits(tmp_path, mount):
    """A mount of handwritten digits, every seventh dropped, and what is left of them."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = x.astype("f4"), y.astype("i8")
    x += np.random.default_rng(0).random(x.shape, "f4") / 8       # no two distances are equal
    gone = np.arange(0, len(x), 7)
    with NumPack(tmp_path / "s.npk") as n:
        n.save({"x": x, "y": y})
        for name in ("x", "y"):
            n.drop(name, gone)
    with mount(tmp_path / "s.npk", ro=False) as m:
        yield m, np.delete(x, gone, axis=0), np.delete(y, gone)


def run(name, *words):
    done = subprocess.run([sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module      # so that worker processes find what is sent to them
    spec.loader.exec_module(module)
    return module


def test_each_example_is_tested_and_tells_its_usage():
    names = {p.stem for p in EXAMPLES.glob("*.py")}
    assert names == {"torch_rows", "tables", "arrow_map", "learn", "urls"}
    for name in names:
        done = subprocess.run([sys.executable, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.startswith("usage: ") and done.stdout == "", done
        assert f"python3 contrib/python/examples/{name}.py MOUNTPOINT" in (EXAMPLES / f"{name}.py").read_text()


def test_torch(digits):
    m, x, y = digits
    lines = run("torch_rows", m.path, "x", "y")
    assert [line.split(",")[0] for line in lines] == [f"epoch {i}: {len(x)} rows" for i in range(3)]
    assert int(lines[-1].split()[-2]) > 0.9 * len(x), lines


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_loader_gives_each_row_once(digits, workers):
    m, x, y = digits
    module = example("torch_rows")
    got = [[t.numpy() for t in batch] for batch in module.loader(m.path, "x", "y", workers=workers, batch_size=100)]
    rows, answers = np.concatenate([b[0] for b in got]), np.concatenate([b[1] for b in got])
    order, want = np.lexsort(rows.T), np.lexsort(x.T)
    np.testing.assert_array_equal(rows[order], x[want])
    np.testing.assert_array_equal(answers[order], y[want])
    assert not np.array_equal(rows, x)      # they are shuffled
    dataset = module.MountedRows(m.path, "x", "y")
    assert len(dataset) == len(x) and (dataset[5][0].numpy() == x[5]).all()
    np.save(m.array("short"), np.zeros(3))
    with pytest.raises(ValueError, match="rows"):
        module.MountedRows(m.path, "x", "short")


def test_tables(digits):
    m, x, _ = digits
    best = np.argsort(-x[:, 0], kind="stable")[:2]
    assert run("tables", m.path, "x") == [
        f"pandas {len(x)} rows, mean of c0 {x[:, 0].mean():.4g}", "pandas read the same from data.csv",
        f"polars {len(x)} rows, largest c0 in rows {best[0]}, {best[1]}", "saved x_means (1, 64)"]
    np.testing.assert_allclose(m.load("x_means")[0], x.astype("f8").mean(axis=0), rtol=1e-5)


def test_arrow(digits):
    m, _, _ = digits
    x = np.random.default_rng(1).integers(0, 1000, (300, 4)).astype("i4")
    np.save(m.array("ints"), x)
    assert run("arrow_map", m.path, "ints") == [
        "300 rows of fixed_size_list<item: int32>[4], 0 bytes allocated", f"sum {x.sum():.6g}",
        f"c0 between {x[:, 0].min():.6g} and {x[:, 0].max():.6g}",
        f"table of 300 rows, row 1 is row {np.flatnonzero(x[:, 0] == x[1, 0])[0]}"]


def test_scikit_learn(digits):
    m, x, _ = digits
    learnt, own, mounts = run("learn", m.path, "x", "y")
    assert learnt.startswith(f"learnt from {len(x)} rows, ") and int(learnt.split()[-2]) > 0.9 * len(x), learnt
    want = np.argsort(((x.astype("f8") - x[17]) ** 2).sum(axis=1), kind="stable")[:5]
    rows = ", ".join(map(str, want))
    assert own == f"nearest to row 17: {rows}" and mounts == f"of the mount:      {rows}"


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_urls(digits, tmp_path, kind):
    m, x, _ = digits
    lines = run("urls", m.path, "x", f"file://{tmp_path}/away/x.npy" if kind == "file" else "memory://away/x.npy")
    assert lines == [f"x {x.shape}", f"2 arrays, {os.stat(m.array('x')).st_size} bytes", "x_back is equal"]
    np.testing.assert_array_equal(m.load("x_back"), x)
