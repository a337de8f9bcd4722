"""npk search, score and merge against numpy, and what they refuse."""

import io
import json
import os
import pathlib
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "search"))

import truth  # noqa: E402
from harness import PATIENCE, program, same, saved  # noqa: E402
from npkrun import good, refused  # noqa: E402
from npkwrite import Spec, write_store  # noqa: E402

HITS = np.dtype([("index", "<u8"), ("score", "<f8")])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """(path, {name: logical array}), with ties, deleted rows and segments."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((900, 16)).astype("f4")
    x[500] = x[40]
    arrays = {"x": Spec(x, deleted=[0, 41, 899], segment_rows=128), "q": Spec(x[10:13] + 1), "one": Spec(x[77].copy()), "wide": Spec(x[:, :8].copy()),
              "double": Spec(x.astype("f8")), "bits": Spec(rng.integers(0, 256, (300, 9), dtype="u1")), "keep": Spec(np.arange(897) % 5 == 1),
              "p": Spec(rng.dirichlet(np.ones(12), 60)), "none": Spec(np.zeros((0, 16), "f4")), "scalar": Spec(np.array(1.5, "f4")), "a[1]": Spec(x[:2].copy())}
    path = tmp_path_factory.mktemp("search") / "s.npk"
    write_store(path, arrays)
    return path, {name: spec.logical() for name, spec in arrays.items()}


def check(metric, got, q, x, k, rows=None):
    rows = np.arange(len(x)) if rows is None else np.asarray(rows)
    want, tolerance = truth.scores(metric, q, x)
    got = got[None] if got.ndim == 1 else got
    assert got.dtype == HITS and got.shape == (len(q), min(k, len(rows)))
    for i, found in enumerate(got):
        index = found["index"].astype(int)
        best = rows[truth.order(metric, want[i][rows])][:len(index)]
        assert set(index) <= set(rows.tolist()) and len(set(index)) == len(index)
        truth.check_scores(found["score"], want[i][index], tolerance[i][index])
        assert (np.abs(want[i][index] - want[i][best]) <= 2 * tolerance[i][best] + np.abs(want[i][best]) * 1e-15)[index != best].all()


def records(data):
    return np.load(io.BytesIO(data))


@pytest.mark.parametrize("metric,name", [(m, "x") for m in ("cosine", "dot", "inner", "l2", "L2SQ")] + [("hamming", "bits"), ("jaccard", "bits"), ("kl", "p"), ("js", "p")])
def test_hits_in_each_form(store, metric, name):
    path, arrays = store
    x = arrays[name]
    got = records(good("search", path, name, "--row", 6, "-m", metric, "-k", 8, "--npy"))
    check(metric.lower(), got, x[6:7], x, 8)
    text = [line.split() for line in good("search", path, name, "-q", 6, "-m", metric, "--top", 8).decode().splitlines()]
    assert [(int(r), float(s)) for r, s in text] == got.tolist()
    told = json.loads(good("search", path, name, "--row", 6, "-m", metric, "-k", 8, "-j"))
    assert told["metric"] == metric.lower() and [(h["index"], h["score"]) for h in told["hits"]] == got.tolist()
    for threads in 1, 2, 7:
        same(records(good("search", path, name, "--row", 6, "-m", metric, "-k", 8, "-n", "-t", threads)), got)
    scores = records(good("score", path, name, "--row", 6, "-m", metric, "--npy"))
    truth.check_scores(scores[None], *truth.scores(metric.lower(), x[6:7], x))
    assert [float(line) for line in good("score", path, name, "--row", 6, "-m", metric).split()] == scores.tolist()
    assert json.loads(good("score", path, name, "--row", 6, "-m", metric, "-j")) == scores.tolist()


def test_queries_from_everywhere(store, tmp_path):
    path, arrays = store
    x, q = arrays["x"], arrays["x"][20:24] - 0.5
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "f.npy", np.asfortranarray(q.astype(">f4")))
    want = records(good("search", path, "x", tmp_path / "q.npy", "-m", "l2", "-n"))
    check("l2", want, q, x, 10)
    same(records(good("search", path, "x", "-", "-m", "l2", "-n", input=saved(q))), want)
    same(records(good("search", path, "x", tmp_path / "f.npy", "-m", "l2", "-n")), want)
    check("l2", records(good("search", path, "x", "--from", "q", "-m", "l2", "-n")), arrays["q"], x, 10)
    check("l2", records(good("search", path, "x", "--from", "q[2,0]", "-m", "l2", "-n")), arrays["q"][[2, 0]], x, 10)
    check("l2", records(good("search", path, "x", "--from", "a[1]", "-m", "l2", "-n")), arrays["a[1]"], x, 10)
    check("l2", records(good("search", path, "x", "--from", "one", "-m", "l2", "-n")), arrays["one"][None], x, 10)
    check("l2", records(good("search", path, "x", "--row=-1", "-m", "l2", "-n")), x[-1:], x, 10)
    lines = good("search", path, "x", "--from", "x[5,6]", "-k", 2, "-m", "l2").decode().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "0", "1", "1"] and lines[0] == "0 5 0" and lines[2] == "1 6 0"
    lists = json.loads(good("search", path, "x", "--from", "x[5,6]", "-k", 1, "-m", "l2", "-j"))["hits"]
    assert [[h["index"] for h in one] for one in lists] == [[5], [6]]
    several = records(good("score", path, "x", "--from", "q", "-m", "l2", "-n", "--rows", "3:9"))
    truth.check_scores(several, *(v[:, 3:9] for v in truth.scores("l2", arrays["q"], x)))
    assert json.loads(good("score", path, "x", "--from", "q", "-m", "l2", "-j", "--rows", "3:9")) == several.tolist()


def test_picked_rows_ties_and_the_ends(store, tmp_path):
    path, arrays = store
    x = arrays["x"]
    for sel, rows in (("0:100", range(100)), ("-1,5", [896, 5]), ("mask=keep", np.flatnonzero(arrays["keep"])), ("::-7", range(896, -1, -7))):
        check("l2", records(good("search", path, "x", "--row", 39, "-m", "l2", "-n", "--rows", sel)), x[39:40], x, 10, list(rows))
    tied = good("search", path, "x", "--row", 39, "-m", "l2", "-k", 2).decode().splitlines()
    assert tied == ["39 0", "498 0"]
    assert len(good("search", path, "x", "--row", 0, "-k", 99999).splitlines()) == 897
    assert good("search", path, "none", "--from", "one") == b"" == good("score", path, "none", "--from", "one")
    assert json.loads(good("search", path, "none", "--from", "one", "-j"))["hits"] == []
    assert records(good("search", path, "none", "--from", "one", "-n")).shape == (0,)
    good("search", path, "x", "--row", 0, "-n", "-o", tmp_path / "hits.npy")
    same(np.load(tmp_path / "hits.npy"), records(good("search", path, "x", "--row", 0, "-n")))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("source", [["--row", "39"], ["--from", "q"]])
def test_merged_ranges_are_one_search(store, tmp_path, metric, source):
    path, _ = store
    want = good("search", path, "x", *source, "-m", metric, "-k", 7)
    parts = []
    for i, sel in enumerate(("0:300", "250:600", "600:", "5:5")):    # two of them overlap
        parts.append(tmp_path / f"part{i}")
        good("search", path, "x", *source, "-m", metric, "-k", 7, "--rows", sel, "-o", parts[-1])
    assert good("merge", "-m", metric, "-k", 7, *parts) == want
    assert good("merge", "-m", metric, "-k", 7, parts[2], parts[1], "-", input=parts[0].read_bytes()) == want
    for flag in "-n", "-j":
        one, other = good("merge", "-m", metric, "-k", 7, flag, *parts), good("search", path, "x", *source, "-m", metric, "-k", 7, flag)
        assert one == other
    assert good("merge", os.devnull) == b""


def test_merge_orders_what_is_no_number_and_refuses_what_is_no_hit(tmp_path):
    text = b"5 nan\n4 inf\n3 -inf\n2 0.5\n9 nan\n1 0.5\n"
    assert good("merge", "-m", "l2", "-", input=text) == b"3 -inf\n1 0.5\n2 0.5\n4 inf\n5 nan\n9 nan\n"
    assert good("merge", "-m", "dot", "-k", "3", "-", input=text) == b"4 inf\n1 0.5\n2 0.5\n"
    for bad in (b"x 1\n", b"1\n", b"1 x\n", b"1 2 3 4\n", b"-1 2\n", b"1  2\n", b"\n", b"1 2\n0 1 2\n", b"1 5 0.5\n", b"\x93NUMPY"):
        assert "hit" in refused(2, "merge", "-", input=bad) or "columns" in refused(2, "merge", "-", input=bad)
    refused(2, "merge", tmp_path / "missing")
    refused(1, "merge")
    refused(1, "merge", "-k", "0", "-")
    refused(1, "merge", "-m", "l3", "-")


@pytest.mark.parametrize("status,args,says", [
    (1, ["x"], "no query"), (1, ["x", "-", "--row", "1"], "more than one"), (1, ["x", "--row", "1", "--from", "q"], "more than one"),
    (1, ["x", "--row", "1", "-m", "l3"], "l3"), (1, ["x", "--row", "1", "--rows", "1;2"], "axes"), (1, ["x", "--row", "1", "-j", "-n"], "--npy"),
    (2, ["nobody", "--row", "1"], "nobody"), (2, ["x", "--row", "897"], "897"), (2, ["x", "--row", "one"], "one"), (2, ["x", "--from", "wide"], "8 elements"),
    (2, ["x", "--from", "double"], "float64"), (2, ["x", "--from", "none"], "no vector"), (2, ["x", "--from", "nothing[0]"], "nothing"), (2, ["x", "--row", "1", "-m", "hamming"], "float32"),
    (2, ["x", "--row", "1", "--rows", "900"], "900"), (2, ["scalar", "--row", "0"], "scalar"), (2, ["x", "/no/such/file"], "/no/such/file"),
])
def test_nonsense_is_refused(store, status, args, says):
    path, _ = store
    assert says in refused(status, "search", path, *args)
    assert says in refused(status, "score", path, *args)


def test_bad_input_is_refused(store):
    path, arrays = store
    nan = arrays["x"][0].copy()
    nan[3] = np.nan
    for command in "search", "score":
        for data in (b"", b"not numpy", saved(arrays["x"][0])[:-1], saved(nan), saved(arrays["x"].astype("f8")), saved(arrays["x"][0]) * 2):
            refused(2, command, path, "x", "-", input=data)
    for bad in ("0", "-1", "x", ""):
        refused(1, "search", path, "x", "--row", "1", "-k", bad)
        refused(1, "search", path, "x", "--row", "1", "-t", bad)


def test_a_terminal_gets_no_binary_and_hears_of_a_long_run(store):
    path, _ = store
    main, side = pty.openpty()
    done = subprocess.run([program("npk"), "search", path, "x", "--row", "1", "--npy"], stdout=side, stderr=subprocess.PIPE, timeout=PATIENCE)
    assert done.returncode == 2 and b"terminal" in done.stderr
    # The rows are looked at again and again: it takes seconds, and says so; into a file it says nothing.
    slow = [str(program("npk")), "search", str(path), "x", "--from", "x", "-k", "1", "-m", "l2", "--rows", ",".join([":"] * 20000)]
    p = subprocess.Popen(slow, stdout=subprocess.DEVNULL, stderr=side)
    os.close(side)
    seen = b""
    while not re.search(rb"search \[[# ]+\] +\d+ %", seen):
        seen += os.read(main, 1000)
    assert p.poll() is None
    p.kill()
    p.wait()
    os.close(main)
    p = subprocess.Popen(slow, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        p.wait(2.5)
    p.kill()
    assert p.stderr.read() == b""
    p.wait()
    p.stderr.close()
