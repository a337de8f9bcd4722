"""Conversations with `search`: the nearest rows as numpy finds them in its widest type, and what is refused."""

import contextlib
import errno
import io
import json
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "search"))

import truth  # noqa: E402
from harness import Mounter, expect_error, same, saved, wait_for  # noqa: E402
from npkwrite import Spec, write_store  # noqa: E402

HITS = np.dtype([("index", "<u8"), ("score", "<f8")])
FLOATS = ["float16", "float32", "float64"]
INTS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
PAIRS = [(m, d) for m in ["cosine", "dot", "inner", "l2", "l2sq"] for d in FLOATS + INTS + ["bool"]]
PAIRS += [(m, d) for m in ("hamming", "jaccard") for d in ("uint8", "bool")] + [(m, d) for m in ("kl", "js") for d in FLOATS]


def ask_fd(fd, line, payload=b""):
    """Writes a line on a handle and reads the whole answer at its position 0."""
    data = line.encode() + b"\n" + payload
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])
    out = b""
    while piece := os.pread(fd, 1 << 20, len(out)):
        out += piece
    return out


def ask(path, line, payload=b""):
    fd = os.open(path, os.O_RDWR)
    try:
        return ask_fd(fd, line, payload)
    finally:
        os.close(fd)


def hits(path, line, payload=b""):
    return np.load(io.BytesIO(ask(path, line + " fmt=npy", payload)))


def by_value(path, line, q):
    data = saved(q)
    return hits(path, f"{line} npy={len(data)}", data)


def refused(path, line, payload=b""):
    """(errno, sentence) of a query that must be refused."""
    fd = os.open(path, os.O_RDWR)
    try:
        try:
            data = line.encode() + b"\n" + payload
            while data:
                data = data[os.write(fd, data):]
        except OSError as e:
            text = os.pread(fd, 4096, 0).decode()
            name = errno.errorcode[e.errno]
            assert text.startswith(f"ERR {name} ") and text.endswith("\n"), text
            return name, text[len(f"ERR {name} "):-1]
        raise AssertionError(f"{line:.200} was taken: {os.pread(fd, 4096, 0)!r:.200}")
    finally:
        with contextlib.suppress(OSError):      # the error of the write, again
            os.close(fd)


def sample(rng, metric, dtype, shape):
    if metric in ("kl", "js"):
        x = rng.random(shape) ** 3 * (rng.random(shape) > 0.05)
        return (x / np.maximum(x.sum(-1, keepdims=True), 1e-9)).astype(dtype)
    if dtype == "bool":
        return rng.random(shape) < 0.4
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def check(metric, got, q, x, k, rows=None):
    """`got`, nq x k records, against numpy: the scores are right, and no better row is missing."""
    want, tolerance = truth.scores(metric, q, x)
    rows = np.arange(len(x)) if rows is None else np.asarray(rows)
    got = got[None] if got.ndim == 1 else got
    assert got.dtype == HITS and got.shape == (len(q), min(k, len(rows)))
    for i, found in enumerate(got):
        index = found["index"].astype(int)
        assert len(set(index)) == len(index) and set(index) <= set(rows.tolist())
        truth.check_scores(found["score"], want[i][index], tolerance[i][index])
        best = rows[truth.order(metric, want[i][rows])][:len(index)]
        differs = index != best
        slack = 2 * (tolerance[i][index] + tolerance[i][best]) + np.abs(want[i][best]) * 1e-15
        with np.errstate(invalid="ignore"):
            near = np.abs(want[i][index] - want[i][best]) <= slack
        assert (near | ~differs | (np.isnan(want[i][index]) & np.isnan(want[i][best]))).all(), (metric, index, best)


@pytest.fixture
def served(mount, tmp_path):
    """served({name: array or Spec}, ro=True, ...): a mount of a store with these arrays."""
    with contextlib.ExitStack() as stack:
        def start(arrays, *options, **kw):
            path = tmp_path / f"store{len(list(tmp_path.iterdir()))}.npk"
            write_store(path, {n: a if isinstance(a, Spec) else Spec(a) for n, a in arrays.items()})
            return stack.enter_context(mount(path, *options, **kw))

        yield start


@pytest.fixture(scope="module")
def floats():
    rng = np.random.default_rng(17)
    return rng.standard_normal((600, 24)).astype("f4")


# --- answers ----------------------------------------------------------------------------------------------------------


def test_every_metric_and_dtype(served):
    rng = np.random.default_rng(1)
    data = {}
    for metric, dtype in PAIRS:
        x = sample(rng, metric, dtype, (230, 19))
        x[100] = x[7]
        data[f"{metric}-{dtype}"] = Spec(x, deleted=[0, 5, 229], segment_rows=64)
    m = served(data)
    for metric, dtype in PAIRS:
        name = f"{metric}-{dtype}"
        x, path = data[name].logical(), m.control(name) / "search"
        check(metric, hits(path, f"k=7 metric={metric} row=6"), x[6:7], x, 7)
        check(metric, by_value(path, f"k=3 metric={metric.upper()}", x[10:30]), x[10:30], x, 3)
        scores = hits(path, f"op=scores metric={metric} row=6")
        assert scores.dtype == "<f8" and scores.shape == (len(x),)
        truth.check_scores(scores[None], *truth.scores(metric, x[6:7], x), note=name)
        pair = float(ask(path, f"op=pair metric={metric} row=6 row=9"))
        assert pair == scores[9] or (np.isnan(pair) and np.isnan(scores[9]))


def test_row_17_comes_first_with_score_1_in_every_form(served, floats):
    m = served({"emb": floats})
    path = m.control("emb") / "search"
    shell = subprocess.run(["bash", "-ec", f"exec 3<>'{path}'; echo 'k=5 metric=cosine row=17' >&3; cat <&3"], check=True,
                           stdout=subprocess.PIPE, text=True).stdout
    lines = shell.splitlines()
    assert len(lines) == 5 and lines[0] == "17 1"
    records = hits(path, "k=5 metric=cosine row=17")
    assert [(int(r), float(s)) for r, s in (line.split() for line in lines)] == [tuple(h) for h in records.tolist()]
    told = json.loads(ask(path, "k=5 metric=cosine row=17 fmt=json"))
    assert (told["op"], told["metric"]) == ("topk", "cosine")
    assert told["generation"] == int((m.control("emb") / "generation").read_text())
    assert [(h["index"], h["score"]) for h in told["hits"]] == records.tolist()
    same(np.frombuffer(ask(path, "k=5 metric=cosine row=17 fmt=npy"), "u1"), np.frombuffer(saved(records), "u1"))


def test_the_shell_reads_line_by_line_and_asks_again(served, floats):
    path = served({"emb": floats}).control("emb") / "search"
    script = f"""exec 3<>'{path}'
        for row in 3 4 599; do echo "k=2 metric=l2 row=$row" >&3; while read -r i s <&3; do echo "$i $s"; done; done"""
    out = subprocess.run(["bash", "-ec", script], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    assert len(out) == 12 and [out[0], out[4], out[8]] == ["3", "4", "599"] and out[1] == out[5] == out[9] == "0"


def test_several_queries(served, floats):
    m = served({"emb": floats, "q": floats[5:9] + 1, "one": floats[3].copy()})
    path = m.control("emb") / "search"
    got = by_value(path, "k=4 metric=l2", floats[:3])
    check("l2", got, floats[:3], floats, 4)
    same(np.frombuffer(saved(got), "u1"), np.frombuffer(ask(path, f"k=4 metric=l2 fmt=npy raw={3 * 96}", floats[:3].tobytes()), "u1"))
    check("l2", hits(path, "k=4 metric=l2 from=q"), floats[5:9] + 1, floats, 4)
    check("l2", hits(path, "k=4 metric=l2 from=q[1:4:2]"), floats[[6, 8]] + 1, floats, 4)
    check("l2", hits(path, "k=4 metric=l2 from=emb[-1]"), floats[-1:], floats, 4)
    assert hits(path, "k=4 metric=l2 from=one").tolist()[0] == (3, 0.0)     # a single vector, as np.save(vector) makes it
    lines = [line.split() for line in ask(path, "k=2 metric=l2 from=emb[10,11]").decode().splitlines()]
    assert [line[0] for line in lines] == ["0", "0", "1", "1"] and lines[0][1:] == ["10", "0"] and lines[2][1:] == ["11", "0"]
    lists = json.loads(ask(path, "k=2 metric=l2 from=emb[10,11] fmt=json"))["hits"]
    assert [[h["index"] for h in one] for one in lists] == [[int(lines[0][1]), int(lines[1][1])], [int(lines[2][1]), int(lines[3][1])]]


def test_numbers_in_the_line(served):
    rng = np.random.default_rng(2)
    data = {dtype: sample(rng, "l2", dtype, (40, 6)) for dtype in FLOATS + INTS + ["bool"]}
    m = served(data)
    for dtype, x in data.items():
        path = m.control(dtype) / "search"
        words = ",".join(repr(float(v)) if np.dtype(dtype).kind == "f" else str(int(v)) for v in x[31])
        assert float(ask(path, f"op=pair metric=l2 row=31 q={words}")) == 0, dtype
        check("l2", hits(path, f"k=3 metric=l2 q={words}"), x[31:32], x, 3)
        assert refused(path, "k=1 metric=l2 q=1,0,1,1,1")[0] == "EINVAL"
        assert "number 2, 'x'" in refused(path, "k=1 metric=l2 q=1,x,0,0,0,1")[1]
        if np.dtype(dtype).kind != "f":
            assert refused(path, f"k=1 metric=l2 q=0,{np.iinfo(dtype).max + 1 if dtype != 'bool' else 2},0,0,0,0")[0] == "EINVAL"


def test_half_precision_numbers_are_rounded_as_numpy_does(served):
    every = np.arange(0x7C00, dtype="u2").view("f2").astype("f8")
    between = (every[:-1] + every[1:]) / 2
    numbers = np.concatenate([every[::97], between[::89], -between[1::1013], np.nextafter(between[::211], 1e9), [65519.9]])
    path = served({"x": numbers.astype("f2")[None]}).control("x") / "search"
    line = "op=pair metric=l2sq row=0 q=" + ",".join(repr(float(v)) for v in numbers)
    assert float(ask(path, line)) == 0


def test_picked_rows(served, floats):
    pick = np.arange(600) % 7 == 3
    m = served({"emb": Spec(floats, deleted=[2, 100]), "pick": pick[:598], "bytes": pick[:598].astype("u1")})
    live = np.delete(floats, [2, 100], axis=0)
    path = m.control("emb") / "search"
    for sel, rows in (("0:100", range(100)), ("50", [50]), ("-1", [597]), ("5,1,9", [5, 1, 9]), ("9:3:-2,40:60", [9, 7, 5, *range(40, 60)]),
                      ("mask=pick", np.flatnonzero(pick[:598])), ("mask=bytes", np.flatnonzero(pick[:598])), ("all", range(598)), ("7:7", [])):
        rows = np.array(rows, dtype=int)
        check("l2", hits(path, f"k=8 metric=l2 row=4 rows={sel}"), live[4:5], live, 8, rows)
        text = [line.split() for line in ask(path, f"op=scores metric=l2 row=4 rows={sel}").decode().splitlines()]
        assert [int(t[0]) for t in text] == rows.tolist()
        scores = hits(path, f"op=scores metric=l2 row=4 rows={sel}")
        assert scores.tolist() == [float(t[1]) for t in text]
        truth.check_scores(scores[None], *(v[:, rows] for v in truth.scores("l2", live[4:5], live)))
    assert refused(path, "k=1 metric=l2 row=0 rows=598")[0] == "ERANGE"
    assert refused(path, "k=1 metric=l2 row=0 rows=0;1")[0] == "EINVAL"
    assert refused(path, "k=1 metric=l2 row=0 rows=x")[0] == "EINVAL"
    assert refused(path, "k=1 metric=l2 row=0 rows=mask=none")[0] == "ENOENT"


def test_ties_zero_norms_and_more_than_there_are(served):
    x = np.zeros((50, 8), "f4")
    x[20:30, 0] = 3
    path = served({"x": x, "none": np.zeros((0, 8), "f4"), "gone": Spec(x, deleted=list(range(50)))}).control("x") / "search"
    got = hits(path, "k=99 metric=cosine row=25")
    assert got["index"].tolist() == [*range(20, 30), *range(20), *range(30, 50)]
    assert got["score"].tolist() == [1.0] * 10 + [0.0] * 40
    assert hits(path, "k=4 metric=l2 row=0")["index"].tolist() == [0, 1, 2, 3]
    assert hits(path, "k=18446744073709551615 metric=l2 row=0").shape == (50,)
    for name in "none", "gone":
        other = path.parents[1] / name / "search"
        vector = ",".join(["1"] * 8)
        assert ask(other, f"k=5 metric=l2 q={vector}") == b""
        assert json.loads(ask(other, f"k=5 metric=l2 q={vector} fmt=json"))["hits"] == []
        assert hits(other, f"k=5 metric=l2 q={vector}").shape == (0,)
        assert by_value(other, "k=5 metric=l2", x[:3]).shape == (3, 0)
        assert hits(other, f"op=scores metric=l2 q={vector}").shape == (0,)


def test_what_is_no_number_in_json_is_null(served):
    x = np.array([[0.5, 0.5], [0, 1], [np.nan, 1]], "f8")
    path = served({"x": x}).control("x") / "search"
    assert [h["score"] for h in json.loads(ask(path, "k=3 metric=kl row=0 fmt=json"))["hits"]] == [0, None, None]
    assert ask(path, "k=3 metric=kl row=0") == b"0 0\n1 inf\n2 nan\n"


def test_op_pair(served, floats):
    path = served({"emb": floats}).control("emb") / "search"
    want = np.sqrt(((floats[:4].astype("f8") - floats[10:14]) ** 2).sum(1))
    both = saved(floats[10:14])
    for line, payload in (("from=emb[0:4] from=emb[10:14]", b""), (f"from=emb[0:4] npy={len(both)}", both)):
        np.testing.assert_allclose(hits(path, "op=pair metric=l2 " + line, payload), want, rtol=1e-12)
    two = saved(floats[[0, 10]])
    assert float(ask(path, f"op=pair metric=l2 npy={len(two)}", two)) == pytest.approx(want[0], rel=1e-12)
    assert json.loads(ask(path, "op=pair metric=l2 row=0 row=10 fmt=json"))["scores"] == pytest.approx([want[0]], rel=1e-12)
    for line in ("row=1", "from=emb[0:3]", "from=emb[0:3] row=1", "row=1 row=2 row=3", "row=1 row=2 k=3", "row=1 row=2 rows=0:5"):
        assert refused(path, "op=pair metric=l2 " + line)[0] == "EINVAL", line


def test_queries_in_any_order_and_byte_order(served):
    x = np.arange(120, dtype="f4").reshape(10, 3, 4)
    path = served({"x": x}).control("x") / "search"
    for q in (x[6], x[6].reshape(-1), x[6:7].reshape(1, 12), np.asfortranarray(x[6]), x[6].astype(">f4")):
        assert by_value(path, "k=1 metric=l2", q).tolist() == [(6, 0.0)]
    got = by_value(path, "k=1 metric=l2", np.asfortranarray(x[2:5].astype(">f4")))
    assert got.tolist() == [[(2, 0.0)], [(3, 0.0)], [(4, 0.0)]]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line,code,says", [
    ("k=5 metric=l3 row=1", "EINVAL", "l3"), ("k=0 metric=l2 row=1", "EINVAL", "at least 1"), ("k=five metric=l2 row=1", "EINVAL", "five"),
    ("k=-1 metric=l2 row=1", "EINVAL", "-1"), ("k= metric=l2 row=1", "EINVAL", "k="), ("k=99999999999999999999 metric=l2 row=1", "EINVAL", "k="),
    ("metric=l2 row=1", "EINVAL", "no k="), ("k=5 row=1", "EINVAL", "no metric="), ("k=5 metric=l2", "EINVAL", "no query"),
    ("k=5 k=6 metric=l2 row=1", "EINVAL", "twice"), ("k=5 metric=l2 row=1 row=2", "EINVAL", "op=pair"), ("k=5 metric=l2 row=1 x", "EINVAL", "'x'"),
    ("k=5 metric=l2 row=1 limit=3", "EINVAL", "limit="), ("k=5 metric=l2 row=1 fmt=xml", "EINVAL", "xml"), ("k=5 metric=l2 row=1 op=all", "EINVAL", "all"),
    ("k=5 metric=hamming row=1", "EINVAL", "float32"), ("k=5 metric=l2 row=600", "ERANGE", "600 rows"), ("k=5 metric=l2 row=-601", "ERANGE", "-601"),
    ("k=5 metric=l2 row=1.5", "EINVAL", "1.5"), ("k=5 metric=l2 row=", "EINVAL", "row="), ("k=5 metric=l2 from=nobody", "ENOENT", "nobody"),
    ("k=5 metric=l2 from=narrow", "EINVAL", "5 elements"), ("k=5 metric=l2 from=double", "EINVAL", "float64"), ("k=5 metric=l2 from=emb[0:0]", "EINVAL", "no query"),
    ("k=5 metric=l2 from=emb[0", "ENOENT", "emb"), ("k=5 metric=l2 from=emb[x]", "EINVAL", "x"), ("k=5 metric=l2 from=nans", "EINVAL", "NaN"),
    ("k=5 op=scores metric=l2 row=1", "EINVAL", "op=scores"), ("k=5 metric=l2 npy=x", "EINVAL", "npy="), ("k=5 metric=l2 npy=0", "EINVAL", "cut short"),
    ("k=5 metric=l2 raw=0", "EINVAL", "96 bytes"), ("k=5 metric=l2 npy=99999999999", "E2BIG", "ctl_max"),
    ("k=5 metric=l2 npy=99999999999999999999999", "E2BIG", "ctl_max"), ('k=5 metric=l2 "row=1', "EINVAL", "quote"),
])
def test_bad_lines_are_refused_with_a_sentence(hostile, line, code, says):
    got, sentence = refused(hostile.control("emb") / "search", line)
    assert got == code and says in sentence, sentence
    assert hits(hostile.control("emb") / "search", "k=1 metric=l2 row=3").tolist() == [(3, 0.0)]     # it goes on serving
    assert hostile.last_errors()[-1]["errno"] == code


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, watchdog, floats):
    base = tmp_path_factory.mktemp("hostile")
    nans = floats[:3].copy()
    nans[1, 5] = np.nan
    write_store(base / "s.npk", {"emb": Spec(floats), "narrow": Spec(floats[:, :5].copy()), "double": Spec(floats.astype("f8")),
                                 "nans": Spec(nans), "scalar": Spec(np.array(3.5, "f4")), "c": Spec(floats[:, :4].astype("c8"))})
    with Mounter(base / "mounts", watchdog)(base / "s.npk", "ctl_max=256k") as m:
        yield m


def test_bad_payloads_are_refused(hostile, floats):
    path = hostile.control("emb") / "search"
    good, nan = saved(floats[3]), floats[3].copy()
    nan[0] = np.nan
    for data, says in ((b"x" * 200, ".npy"), (good[:-1], "bytes of data"), (good + b"x", "bytes of data"), (good[:60], "cut short"),
                       (saved(floats[3].astype("f8")), "float64"), (saved(floats[3][:9]), "9 elements"), (saved(nan), "NaN"),
                       (saved(np.zeros((0, 24), "f4")), "no query"), (saved(np.array(["a", "b"], object)), "search")):
        code, sentence = refused(path, f"k=1 metric=l2 npy={len(data)}", data)
        assert code == "EINVAL" and says in sentence, (data[:20], sentence)
    assert refused(path, "k=1 metric=l2 raw=95", bytes(95))[0] == "EINVAL"
    assert refused(path.parents[1] / "scalar" / "search", "k=1 metric=l2 row=0")[0] == "EINVAL"
    assert "complex64" in refused(path.parents[1] / "c" / "search", "k=1 metric=l2 row=0")[1]
    assert refused(path.parents[1] / "c" / "search", "k=1 metric=l2 q=1,2,3,4")[0] == "EINVAL"


def test_what_is_too_big_is_refused(hostile):
    path = hostile.control("emb") / "search"
    assert refused(path, f"k=1 metric=l2 raw={256 * 1024 + 1}")[0] == "E2BIG"
    data = np.zeros((2730, 24), "f4").tobytes()      # fits
    assert hits(path, f"k=1 metric=l2 raw={len(data)}", data).shape == (2730, 1)
    assert refused(path, f"k=600 metric=l2 raw={len(data)}", data)[0] == "E2BIG"       # 2730 x 600 records do not
    assert refused(path, "k=1 metric=l2 q=" + "1" * (1 << 20))[0] == "E2BIG"
    expect_error(errno.E2BIG, ask, path, f"op=scores metric=l2 raw={96 * 200}", bytes(96 * 200))    # as text: told when read
    assert np.load(io.BytesIO(ask(path, f"op=scores metric=l2 fmt=npy raw={96 * 200}", bytes(96 * 200)))).shape == (200, 600)


def test_a_payload_in_pieces(hostile, floats):
    path = hostile.control("emb") / "search"
    data = saved(floats[44])
    fd = os.open(path, os.O_RDWR)
    for piece in (f"k=1 metric=l2 npy={len(data)}".encode(), b"\n", data[:50], data[50:]):
        assert os.pread(fd, 99, 0)[:3] in (b"", b"ERR")
        assert os.write(fd, piece) == len(piece)
    assert os.pread(fd, 99, 0) == b"44 0\n"
    # A payload that does not come: the handle says so, and so does close.
    os.write(fd, f"k=1 metric=l2 npy={len(data)}\n".encode() + data[:-3])
    text = os.pread(fd, 999, 0).decode()
    assert text.startswith("ERR EINVAL ") and str(len(data) + len(f"k=1 metric=l2 npy={len(data)}\n")) in text, text
    expect_error(errno.EINVAL, os.close, fd)
    wait_for("the loss is told", lambda: any("announces" in e["message"] for e in hostile.last_errors()))
    # A shell flushes between the line and what it announces.
    script = f"exec 3<>'{path}'; printf 'k=1 metric=l2 npy={len(data)}\\n' >&3; cat >&3; cat <&3"
    out = subprocess.run(["bash", "-c", script], input=data, check=True, stdout=subprocess.PIPE).stdout
    assert out == b"44 0\n"


def test_refused_bytes_are_refused_again_and_do_not_spoil_the_handle(hostile, floats):
    path = hostile.control("emb") / "search"
    bad = saved(floats[3].astype("f8"))
    fd = os.open(path, os.O_RDWR)
    os.write(fd, f"k=1 metric=l2 npy={len(bad)}\n".encode())
    expect_error(errno.EINVAL, os.write, fd, bad)
    expect_error(errno.EINVAL, os.write, fd, bad)
    assert ask_fd(fd, "k=1 metric=l2 row=8") == b"8 0\n"
    os.close(fd)


def test_several_lines_in_one_write(hostile):
    path = hostile.control("emb") / "search"
    fd = os.open(path, os.O_RDWR)
    data = b"k=1 metric=l2 row=1\nk=1 metric=l2 row=2\n"
    assert os.write(fd, data) == len(data) and os.pread(fd, 99, 0) == b"2 0\n"
    expect_error(errno.EINVAL, os.write, fd, data + b"k=0 metric=l2 row=2\n")
    os.write(fd, data[:9])
    os.write(fd, data[9:20])
    assert os.pread(fd, 99, 0) == b"1 0\n"
    os.close(fd)
    with open(path) as f:
        assert f.read().startswith("usage: ")


# --- changes and others -----------------------------------------------------------------------------------------------


def test_a_dropped_row_never_comes_back(served, floats):
    m = served({"emb": floats}, ro=False)
    path, live, gone = m.control("emb") / "search", floats, []
    q = saved(floats[17])
    for _ in range(6):
        best = np.load(io.BytesIO(ask(path, f"k=3 metric=cosine fmt=npy npy={len(q)}", q)))
        check("cosine", best, floats[17:18], live, 3)
        row = int(best["index"][0])
        gone.append(live[row].tobytes())
        (m.control("emb") / "drop").write_text(f"{row}\n")
        live = np.delete(live, row, axis=0)
        assert not any(live[int(i)].tobytes() in gone for i in hits(path, "k=594 metric=cosine row=0")["index"])
    assert gone[0] == floats[17].tobytes()
    (m.control("emb") / "compact").write_text("1\n")
    check("l2", hits(path, "k=9 metric=l2 row=5"), live[5:6], live, 9)


def test_a_query_answers_for_the_moment_it_was_written(served, floats):
    m = served({"emb": floats}, ro=False)
    path = m.control("emb") / "search"
    fd = os.open(path, os.O_RDWR)
    os.write(fd, b"k=2 metric=l2 row=17\n")
    (m.control("emb") / "drop").write_text("0:18\n")
    with open(m.control("emb") / "append", "wb") as f:
        np.save(f, floats[17:18])
    got = os.pread(fd, 999, 0).split()
    assert got[:2] == [b"17", b"0"] and int(got[2]) != 600, got
    assert hits(path, "k=1 metric=l2 row=-1")["index"].tolist() == [582]
    os.close(fd)


def test_written_rows_are_found(served, floats):
    m = served({"emb": floats, "q": floats[:2]}, ro=False)
    path = m.control("emb") / "search"
    x = m.load("emb", mmap_mode="r+")
    x[100] = 50        # no flush: a dirty page of the map
    one = ",".join(["50"] * 24)
    assert hits(path, f"k=1 metric=l2 q={one}").tolist() == [(100, 0.0)]
    q = m.load("q", mmap_mode="r+")
    q[1] = 50
    assert hits(path, "k=1 metric=l2 from=q[1]").tolist() == [(100, 0.0)]
    del x, q


def test_two_processes_have_their_own_answers(served, floats):
    path = served({"emb": floats}).control("emb") / "search"
    script = f"""
import os, sys
fd = os.open({str(path)!r}, os.O_RDWR)
for row in range(int(sys.argv[1]), 600, 2):
    os.write(fd, b"k=1 metric=l2 row=%d\\n" % row)
    assert os.pread(fd, 99, 0) == b"%d 0\\n" % row
"""
    both = [subprocess.Popen([sys.executable, "-c", script, str(i)]) for i in (0, 1)]
    assert [p.wait(120) for p in both] == [0, 0]


def test_threads_on_their_own_handles_and_readers_beside_them(served):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40000, 64)).astype("f4")
    m = served({"x": x, "other": x[:100]}, "threads=2", ro=False)
    path, want = m.control("x") / "search", {}
    for row in range(6):
        want[row] = np.argsort(((x.astype("f8") - x[row]) ** 2).sum(1), kind="stable")[:5].tolist()
    failed = []

    def client(row):
        try:
            for _ in range(4):
                assert hits(path, f"k=5 metric=l2 row={row}")["index"].tolist() == want[row]
        except BaseException as e:     # noqa: B036: told by the test
            failed.append(e)

    threads = [threading.Thread(target=client, args=(row,)) for row in range(6)]
    for t in threads:
        t.start()
    for i in range(50):
        np.save(m.array("other"), x[i:i + 10])
        same(m.load("other"), x[i:i + 10])
    for t in threads:
        t.join()
    assert not failed, failed


def test_the_verb_of_ctl(served, floats):
    for ro in True, False:
        m = served({"emb": floats, "a b": floats[:4]}, ro=ro)
        ctl = m.control() / "ctl"
        assert ask(ctl, "search emb k=1 metric=l2 row=5") == b"5 0\n"
        assert ask(ctl, 'search "a b" k=1 metric=l2 row=2') == b"2 0\n"
        data = saved(floats[9])
        assert ask(ctl, f"search emb k=1 metric=l2 npy={len(data)}", data) == b"9 0\n"
        for line, code in (("search", "EINVAL"), ("search emb", "EINVAL"), ("search emb k=0 metric=l2 row=1", "EINVAL"),
                           ("search no k=1 metric=l2 row=1", "ENOENT")):
            assert refused(ctl, line)[0] == code


def test_stats_count_searches(served, floats):
    m = served({"emb": floats})
    for _ in range(3):
        ask(m.control("emb") / "search", "k=1 metric=l2 row=5")
    stats = json.loads((m.control() / "stats").read_text())
    assert stats["searches"] == 3 and stats["searches_failed"] == 0
