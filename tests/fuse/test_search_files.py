"""search.d and scores.d: answers as files, of exact size, that follow the array."""

import errno
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from harness import SANITIZED, Mounter, expect_error, mounted, same, saved, scaled, wait_for
from npkwrite import Spec, write_store
from test_search import ask, check, floats, hits, served, truth  # noqa: F401: fixtures and helpers


def stats(m):
    return json.loads((m.control() / "stats").read_text())


@pytest.mark.parametrize("query,words", [
    ("metric=cosine,k=10,row=17", "metric=cosine k=10 row=17"),
    ("k=3,metric=l2,row=-1,rows=0:50,60,70:80", "k=3 metric=l2 row=-1 rows=0:50,60,70:80"),
    ("k=3,metric=l2,row=0,rows=5+9+1", "k=3 metric=l2 row=0 rows=5+9+1"),
    ("metric=dot,k=5,from=queries", "metric=dot k=5 from=queries"),
    ("metric=dot,k=5,from=queries[1,2]", "metric=dot k=5 from=queries[1,2]"),
    ("metric=dot,k=5,from=%71ueries[0:2]", "metric=dot k=5 from=queries[0:2]"),
    ("k=2,metric=l2,q=" + ",".join(["1.5"] * 24), "k=2 metric=l2 q=" + ",".join(["1.5"] * 24)),
    ("k=9999,metric=l2,row=3,rows=mask=keep", "k=9999 metric=l2 row=3 rows=mask=keep"),
])
def test_a_file_has_what_the_conversation_says(served, floats, query, words):  # noqa: F811
    m = served({"emb": floats, "queries": floats[9:12] * 2, "keep": np.arange(600) % 3 == 0})
    for suffix, fmt in (("txt", "text"), ("json", "json"), ("npy", "npy")):
        path = m.control("emb") / "search.d" / f"{query}.{suffix}"
        want = ask(m.control("emb") / "search", f"{words} fmt={fmt}")
        assert path.stat().st_size == len(want)      # before anybody opened it
        assert path.read_bytes() == want
        assert path.stat().st_size == len(want) and os.stat(path).st_mode & 0o022 == 0
        assert subprocess.run(["cat", path], check=True, stdout=subprocess.PIPE).stdout == want
    records = np.load(m.control("emb") / "search.d" / f"{query}.npy", mmap_mode="r")
    same(records, hits(m.control("emb") / "search", words))


def test_scores_of_every_row(served, floats):  # noqa: F811
    m = served({"emb": Spec(floats, deleted=[4, 5]), "q": floats[:3], "big": np.tile(floats, (300, 1))})
    live = np.delete(floats, [4, 5], axis=0)
    for metric in "cosine", "dot", "l2":
        path = m.control("emb") / "scores.d" / f"metric={metric},row=17.npy"
        assert path.stat().st_size == 128 + 8 * len(live)
        got = np.load(path, mmap_mode="r")
        assert got.dtype == "<f8"
        truth.check_scores(got[None], *truth.scores(metric, live[17:18], live))
        same(np.load(path), got)
    several = np.load(m.control("emb") / "scores.d" / "metric=l2,from=q,rows=10:20.npy")
    assert several.shape == (3, 10)
    truth.check_scores(several, *(v[:, 10:20] for v in truth.scores("l2", floats[:3], live)))
    # Any piece of a long one, also across two queries.
    long = m.control("big") / "scores.d" / "metric=l2,from=q.npy"
    whole = np.load(long)
    assert whole.shape == (3, 180000)
    truth.check_scores(whole[:, :600], *truth.scores("l2", floats[:3], floats))
    same(whole[:, 600:1200], whole[:, :600])
    data = long.read_bytes()
    with open(long, "rb", buffering=0) as f:
        for off, n in ((0, 200), (127, 3), (131, 1000001), (128 + 8 * 180000 - 5, 40), (len(data) - 3, 100)):
            assert os.pread(f.fileno(), n, off) == data[off:off + n], (off, n)
    direct = os.open(long, os.O_RDONLY | os.O_DIRECT)
    assert os.pread(direct, 777, 1001) == data[1001:1778]
    os.close(direct)


@pytest.mark.parametrize("name,code", [
    ("search.d/metric=l3,k=1,row=0.txt", "ENOENT"), ("search.d/metric=l2,k=0,row=0.txt", "ENOENT"), ("search.d/metric=l2,row=0.txt", "ENOENT"),
    ("search.d/metric=l2,k=1,row=0", "ENOENT"), ("search.d/metric=l2,k=1,row=0.csv", "ENOENT"), ("search.d/.txt", "ENOENT"),
    ("search.d/metric=l2,k=1,row=600.txt", "ERANGE"), ("search.d/metric=l2,k=1,from=no.txt", "ENOENT"), ("search.d/metric=l2,k=1,npy=5.txt", "ENOENT"),
    ("search.d/metric=l2,k=1,row=0,fmt=json.txt", "ENOENT"), ("search.d/metric=l2,op=scores,row=0.txt", "ENOENT"), ("search.d/metric=l2,k=1,row=%0.txt", "ENOENT"),
    ("search.d/metric=l2,k=1,from=nans.txt", "ENOENT"), ("search.d/" + "k=1," * 20 + "row=1.txt", "ENOENT"), ("scores.d/metric=l2,row=0.txt", "ENOENT"),
    ("scores.d/metric=l2,k=3,row=0.npy", "ENOENT"), ("scores.d/row=0.npy", "ENOENT"), ("search.d/" + "x" * 1100 + ".txt", "ENAMETOOLONG"),
])
def test_names_that_are_no_queries(served, floats, name, code):  # noqa: F811
    nans = floats[:2].copy()
    nans[0, 0] = np.nan
    m = served({"emb": floats, "nans": nans})
    expect_error(getattr(errno, code), os.stat, m.control("emb") / name)
    if code == "ENOENT" and name.endswith(("txt", "npy")) and "/." not in name and not name.startswith("scores.d/metric=l2,row=0.t"):
        assert m.last_errors()[-1]["errno"] == code and "search" in m.last_errors()[-1]["message"] + name
    assert (m.control("emb") / "search.d/metric=l2,k=1,row=0.txt").read_text() == "0 0\n"


def test_the_directories_are_empty_and_walking_computes_nothing(served, floats):  # noqa: F811
    m = served({"emb": floats}, "show_control")
    for name in "search.d", "scores.d":
        assert os.listdir(m.control("emb") / name) == []
        expect_error(errno.EROFS, (m.control("emb") / name / "x").write_text, "")
    subprocess.run(["grep", "-r", "no such text", m.path / ".numpack"], check=False, stdout=subprocess.DEVNULL)
    assert stats(m)["searches"] == 0


def test_answers_are_kept_until_something_changes(served, floats):  # noqa: F811
    m = served({"emb": floats, "q": floats[3:4], "other": floats}, ro=False)
    base, d = m.control("emb"), m.control("emb") / "search.d"
    path, linked = d / "k=2,metric=l2,row=5.txt", d / "k=1,metric=l2,from=q.txt"

    def computed(*paths):
        before = stats(m)["searches"]
        texts = [p.read_text() for p in paths for _ in range(3)]
        assert all(a == b for a, b in zip(texts[::3], texts[1::3])) and all(a == b for a, b in zip(texts[::3], texts[2::3]))
        return stats(m)["searches"] - before, texts[::3]

    assert computed(path, linked)[0] == 2
    assert computed(path, linked)[0] == 0
    # An append.
    with open(base / "append", "wb") as f:
        np.save(f, floats[5:6])
    n, texts = computed(path, linked)
    assert n == 2 and texts[0] == "5 0\n600 0\n"
    # A drop: a new generation.
    (base / "drop").write_text("5\n")
    assert hits(base / "search", "k=1 metric=l2 row=-1").tolist() == [(599, 0.0)]
    n, texts = computed(d / "k=2,metric=l2,row=599.txt")
    assert n == 1 and texts[0].startswith("599 0\n") and not texts[0].endswith("\n5 0\n")
    # In place, through a map and without a flush.
    x = m.load("emb", mmap_mode="r+")
    x[7] = x[599]
    assert computed(d / "k=2,metric=l2,row=599.txt")[1] == ["7 0\n599 0\n"]
    x[7] = 0
    x.flush()
    assert computed(d / "k=2,metric=l2,row=599.txt")[1] != ["7 0\n599 0\n"]
    del x
    # The array that the query comes from.
    assert computed(linked)[1] == ["3 0\n"]
    np.save(m.array("q"), floats[100:101])
    assert computed(linked)[1] == ["99 0\n"]
    # As a whole.
    np.save(m.array("emb"), floats[::-1].copy())
    assert computed(linked)[1] == ["499 0\n"]


def test_an_open_answer_stays_what_it_was(served, floats):  # noqa: F811
    m = served({"emb": floats}, ro=False)
    name = m.control("emb") / "search.d" / "k=600,metric=l2,row=5.npy"
    scores = m.control("emb") / "scores.d" / "metric=l2,row=5.npy"
    want, all_scores = np.load(name), np.load(scores)
    old, old_scores = np.load(name, mmap_mode="r"), np.load(scores, mmap_mode="r")
    (m.control("emb") / "drop").write_text("0:300\n")
    same(old, want)
    same(old_scores, all_scores)
    assert np.load(name).shape == np.load(scores).shape == (300,)
    check("l2", np.load(name), floats[305:306], floats[300:], 600)


@pytest.mark.skipif(SANITIZED, reason="sanitizers keep memory of their own")
def test_many_answers_leave_memory_bounded(mount, tmp_path, floats):  # noqa: F811
    write_store(tmp_path / "s.npk", {"emb": Spec(np.tile(floats, (200, 1)))})
    with mount(tmp_path / "s.npk", "ctl_max=2M") as m:
        d = m.control("emb") / "search.d"

        def resident():
            return int((pathlib.Path("/proc") / str(m.pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

        for row in range(20):
            assert np.load(d / f"k=100000,metric=l2,row={row}.npy").shape == (100000,)
        before = resident()
        for row in range(20, 20 + scaled(80)):
            np.load(d / f"k=100000,metric=l2,row={row}.npy")
        assert resident() - before < 40 << 20      # 128 MB of answers went by


def test_cp_rsync_and_tar_take_answers_whole(served, floats, tmp_path):  # noqa: F811
    m = served({"emb": floats})
    names = ["k=300,metric=l2,row=5.txt", "k=300,metric=l2,row=6.json", "k=300,metric=l2,row=7.npy"]
    paths = [m.control("emb") / "search.d" / n for n in names]
    want = [p.read_bytes() for p in paths]
    m.process.send_signal(signal.SIGHUP)    # caches are dropped
    to = tmp_path / "to"
    to.mkdir()
    subprocess.run(["cp", *paths, to], check=True)
    assert [(to / n).read_bytes() for n in names] == want
    subprocess.run(["tar", "-C", m.control("emb") / "search.d", "-cf", tmp_path / "t.tar", *names], check=True)
    subprocess.run(["tar", "-xf", tmp_path / "t.tar", "-C", to], check=True)
    assert [(to / n).read_bytes() for n in names] == want


# --- long ones --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_search(tmp_path_factory, watchdog):
    """A mount on which one search takes minutes, since it looks at all rows 400 times, and the line that asks for it."""
    base = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(8)
    x = rng.random((100000, 128)).astype("f4")
    write_store(base / "s.npk", {"x": Spec(x), "small": Spec(x[:10])})
    with Mounter(base / "mounts", watchdog)(base / "s.npk", "threads=2", ro=False) as m:
        yield m, "k=10 metric=js from=x[0:100] rows=" + "+".join([":"] * 400)


def test_a_signal_ends_a_search(long_search):
    m, line = long_search
    script = f"""
import os
fd = os.open({str(m.control('x') / 'search')!r}, os.O_RDWR)
os.write(fd, {line!r}.encode() + b"\\n")
print("asked", flush=True)
os.pread(fd, 100, 0)
print("answered", flush=True)
"""
    for sig in signal.SIGINT, signal.SIGKILL:
        failed = stats(m)["searches_failed"]
        p = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert p.stdout.readline() == "asked\n"
        started = stats(m)["searches"]
        wait_for("the search runs", lambda: stats(m)["searches"] >= max(started, 1))
        time.sleep(0.2)
        p.send_signal(sig)
        assert p.stdout.read() == "" and p.wait(60) != 0
        wait_for("the search has ended", lambda: stats(m)["searches_failed"] == failed + 1)
    assert ask(m.control("small") / "search", "k=1 metric=l2 row=3") == b"3 0\n"


def test_nobody_waits_for_a_search(long_search):
    """More long searches than the mount has workers: files are read and written, commands run, another query is answered."""
    m, line = long_search
    name = line.replace(" ", ",") + ".txt"
    clients = [subprocess.Popen(["cat", m.control("x") / "search.d" / name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
    script = f"exec 3<>'{m.control('x') / 'search'}'; echo '{line}' >&3; exec cat <&3"
    clients += [subprocess.Popen(["bash", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(4)]
    wait_for("they run", lambda: stats(m)["searches"] - stats(m)["searches_failed"] >= 5)
    for i in range(scaled(6)):
        np.save(m.array("new"), np.full(1000, i))
        same(m.load("new"), np.full(1000, i))
        with open(m.control("x") / "append", "wb") as f:
            np.save(f, m.load("x", mmap_mode="r")[:1])
        (m.control("x") / "drop").write_text("-1\n")
        assert ask(m.control("x") / "search", "k=1 metric=l2 row=3 rows=0:9") == b"3 0\n"
        assert m.load("x", mmap_mode="r")[i, 0] >= 0
    assert all(p.poll() is None for p in clients), "the searches ended too soon to tell anything"
    for p in clients:
        p.kill()
        p.wait()


def test_an_unmount_does_not_wait_for_a_search(mount, tmp_path, long_search):
    source, line = long_search
    store = shutil.copytree(source.store, tmp_path / "s.npk", ignore=shutil.ignore_patterns(".numpackfs.lock", "numpackfs.journal*"))
    m = mount.start(store)
    script = f"exec 3<>'{m.control('x') / 'search'}'; echo '{line}' >&3; exec cat <&3"
    p = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for("it runs", lambda: stats(m)["searches"] == 1)
    m.process.send_signal(signal.SIGTERM)
    wait_for("it is detached", lambda: not mounted(m.path))
    assert p.poll() is None
    m.process.send_signal(signal.SIGTERM)      # the second one: not even those who still use the mount are served
    assert p.wait(60) != 0 and p.stdout.read() == b""
    assert m.process.wait(60) == 0
    mount.stop(m)


def test_a_transaction_is_searched_as_it_is_inside(served, floats):  # noqa: F811
    """By handles that are open before and by files asked for before, after every kind of change; outside it is as before."""
    m = served({"emb": Spec(floats, deleted=[4, 5]), "q": floats[:3]}, ro=False)
    before = np.delete(floats, [4, 5], axis=0)
    t = m.control() / "batch" / "t"
    t.mkdir()
    inside, outside = t / ".numpack/arrays/emb", m.control("emb")
    fd = os.open(inside / "search", os.O_RDWR)
    os.mkdir(m.control() / "batch" / "other")
    other = m.control() / "batch" / "other" / ".numpack/arrays/emb"

    def look(x, q):
        for metric in ("cosine", "l2"):
            words = f"k=7 metric={metric} from=q"
            got = hits(inside / "search", words)
            check(metric, got, q, x, 7)
            same(np.load(inside / "search.d" / (words.replace(" ", ",") + ".npy")), got)
            truth.check_scores(np.load(inside / "scores.d" / f"metric={metric},from=q.npy"), *truth.scores(metric, q, x))
            check(metric, hits(t / "ctl", f"search emb {words}"), q, x, 7)
            os.write(fd, f"{words} fmt=npy\n".encode())
            same(np.load(io.BytesIO(os.pread(fd, 1 << 20, 0))), got)
            for elsewhere in outside, other:
                check(metric, hits(elsewhere / "search", words), floats[:3], before, 7)
                same(np.load(elsewhere / "search.d" / (words.replace(" ", ",") + ".npy")), hits(elsewhere / "search", words))

    x, q = before, floats[:3]
    look(x, q)
    (inside / "drop").write_text("0:10\n")
    x = x[10:]
    look(x, q)
    (inside / "append.raw").write_bytes((floats[:2] * 3).tobytes())
    x = np.vstack([x, floats[:2] * 3])
    look(x, q)
    with open(t / "emb.npy", "r+b") as f:
        f.seek(128 + 24 * 4 * 20)
        f.write(floats[1].tobytes())
    x[20] = floats[1]
    look(x, q)
    (inside / "replace").write_bytes(b"21,22\n" + saved(floats[:2]))     # in the transaction's own file by now
    x[21:23] = floats[:2]
    look(x, q)
    np.save(t / "q.npy", q := floats[300:305] * 2)
    look(x, q)
    (inside / "compact").write_text("1\n")
    look(x, q)
    np.save(t / "emb.npy", x := floats[::-1].copy())
    look(x, q)
    os.rmdir(m.control() / "batch" / "other")
    (t / "ctl").write_text("commit\n")
    check("l2", hits(outside / "search", "k=7 metric=l2 from=q"), q, x, 7)
    truth.check_scores(np.load(outside / "scores.d/metric=l2,from=q.npy"), *truth.scores("l2", q, x))
    os.close(fd)
