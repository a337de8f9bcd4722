"""npk bench: it measures what it says, tells medians and spreads that fit together, and leaves nothing behind. No test looks at how
fast anything was."""

import json
import os
import re
import resource
import signal
import subprocess

import numpy as np
import pytest

from harness import BAD, PATIENCE, copy_golden, program, untouched, wait_for
from npkrun import FAILED, USAGE, good, refused, run
from npkwrite import Spec, write_store

READS = ["load", "scan", "rows", "slice", "search"]
ALL = ["save", "load", "scan", "rows", "slice", "append", "replace", "search", "drop", "compact"]
UNITS = {"save": "MB/s", "load": "MB/s", "scan": "MB/s", "slice": "MB/s", "rows": "us/row", "replace": "us/row", "append": "us", "search": "us",
         "drop": "us", "compact": "us"}
SMALL = ["-s", "256k", "-w", "16", "-c", "50"]


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "s.npk", {
        "big": Spec(np.random.default_rng(3).random((5000, 8)).astype("f4"), deleted=[0, 7, 4999]),
        "small": Spec(np.arange(100, dtype="i8")),
        "complex": Spec(np.ones((50, 2), "c8")),
        "none": Spec(np.empty((0, 4), "f4"))})[0]


def bench(*words):
    told = json.loads(good("bench", "--json", *words))
    for op in told["operations"]:
        assert op["unit"] == UNITS[op["name"]]
        for side in ("npk", "plain", "ratio"):
            s = op[side]
            assert s is None or 0 < s["min"] <= s["median"] <= s["max"], op
    return told, {op["name"]: op for op in told["operations"]}


def left(path):
    return sorted(p.name for p in path.iterdir())


@pytest.mark.parametrize("sync", [[], ["--sync"]], ids=["cached", "synced"])
def test_a_scratch_store(tmp_path, sync):
    told, ops = bench(*SMALL, "-n", "2", *sync, tmp_path)
    assert list(ops) == ALL and left(tmp_path) == []
    assert (told["kind"], told["path"], told["dtype"], told["rows"], told["row_bytes"], told["rounds"], told["random_rows"], told["sync"]) == \
        ("scratch", str(tmp_path), "float32", 256 * 1024 // 64, 64, 2, 50, bool(sync))
    assert all(op["plain"] and op["plain_is"] for op in ops.values())


def test_the_current_directory_is_meant_without_an_operand(tmp_path):
    out = good("bench", *SMALL, "-n", "1", cwd=tmp_path).decode()
    assert out.startswith("scratch store in .: float32 x, 4096 rows of 64 bytes; rounds 1, not synced, ")
    assert re.findall(r"^([a-z]+) ", out, re.MULTILINE)[1:] == ALL and left(tmp_path) == []


def test_a_ratio_is_that_of_the_times(store):
    """One round: the median, least and most are one number, and the ratio is that of the two sides."""
    _, ops = bench("-n", "1", "-c", "20", store)
    for op in ops.values():
        npk, plain, ratio = (op[side] for side in ("npk", "plain", "ratio"))
        assert npk["min"] == npk["median"] == npk["max"] and ratio["min"] == ratio["max"]
        times = plain["median"] / npk["median"] if op["unit"] == "MB/s" else npk["median"] / plain["median"]
        assert times == pytest.approx(ratio["median"], rel=1e-4), op


def test_a_store_is_only_read(store):
    with untouched(store):
        told, ops = bench("-n", "2", store)
        assert (told["kind"], told["array"], told["rows"], told["row_bytes"], told["random_rows"]) == ("store", "big", 4997, 32, 1000)
        assert list(ops) == READS and all(op["plain"] for op in ops.values())
        told, ops = bench("-n", "1", store, "small")
        assert (told["array"], told["dtype"], told["rows"], told["random_rows"]) == ("small", "int64", 100, 50)
        _, ops = bench("-n", "1", store, "complex")
        assert ops["search"]["npk"] is None and "complex64" in ops["search"]["why"] and ops["load"]["npk"]
        assert "\nsearch   search: metric 'l2' is not for complex64\n" in good("bench", "-n", "1", store, "complex").decode()
        assert "no array 'none' with anything in it" in refused(FAILED, "bench", store, "none")
        assert "no array 'nobody'" in refused(FAILED, "bench", store, "nobody")


def test_bytes_that_no_plain_file_has(store, tmp_path):
    good("pack", store, tmp_path / "p.npkg")
    _, ops = bench("-n", "1", tmp_path / "p.npkg", "big")
    assert list(ops) == READS and all(op["npk"] and op["plain"] is op["ratio"] is None for op in ops.values())
    assert re.search(r"^load +MB/s +[0-9.]+ \([0-9.]+ - [0-9.]+\) +-$", good("bench", "-n", "1", tmp_path / "p.npkg").decode(), re.MULTILINE)


def test_damage_is_told(tmp_path):
    case = next(b for b in BAD if b["path"] == "data_short")
    bad = copy_golden("bad/data_short", tmp_path)
    assert case["damaged"]
    for name in case["damaged"]:
        assert re.search(r"\.npkd\b", refused(FAILED, "bench", bad, name))
    for name in case["usable"]:
        assert bench("-n", "1", bad, name)[0]["array"] == name
    assert bench("-n", "1", bad)[0]["array"] in case["usable"]    # the largest of those that are sound


def test_a_mount_is_read_through_its_files(store, mount):
    with mount(store) as m, untouched(store):
        before = json.loads((m.control() / "stats").read_text())
        told, ops = bench("-n", "1", "-c", "10", m.path)
        after = json.loads((m.control() / "stats").read_text())
        assert (told["kind"], told["path"], told["array"], told["rows"]) == ("mount", str(m.path), "big", 4997)
        assert list(ops) == READS and all(op["plain"] for op in ops.values())
        assert after["read_bytes"] - before["read_bytes"] >= 4997 * 32
        assert after["searches"] - before["searches"] >= 1
        assert bench("-n", "1", m.path, "small")[0]["rows"] == 100
        assert "Read-only file system" in refused(FAILED, "bench", *SMALL, "--write", m.path)
        assert "nobody.npy: No such file" in refused(FAILED, "bench", m.path, "nobody")
    assert left(store.parent) == ["mounts", "s.npk"]


def test_changes_through_a_mount(store, mount):
    with mount(store, ro=False) as m:
        names, before = left(m.path), json.loads((m.control() / "stats").read_text())
        told, ops = bench(*SMALL, "-n", "2", "--write", m.path)
        after = json.loads((m.control() / "stats").read_text())
        assert list(ops) == ALL and told["kind"] == "mount" and re.fullmatch(r"npk-bench-\d+", told["array"])
        assert after["written_bytes"] - before["written_bytes"] >= 3 * 256 * 1024
        assert left(m.path) == names
        assert m.last_errors() == []
    assert left(store.parent) == ["mounts", "s.npk"]
    assert good("ls", store).decode().split() == ["big", "complex", "none", "small"]


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(tmp_path, sig):
    p = subprocess.Popen([str(program("npk")), "bench", "-s", "4M", "-n", "1000", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_for("it has begun", lambda: list(tmp_path.glob("npk-bench.*/plain")))
        p.send_signal(sig)
        out, err = p.communicate(timeout=PATIENCE)
    finally:
        p.kill()
    assert (p.returncode, out, err) == (-sig, b"", b"") and left(tmp_path) == []


def test_a_signal_leaves_nothing_in_a_mount(store, mount):
    with mount(store, ro=False) as m:
        names = left(m.path)
        p = subprocess.Popen([str(program("npk")), "bench", "-s", "1M", "-n", "1000", "-W", str(m.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_for("it has begun", lambda: left(m.path) != names)
            p.send_signal(signal.SIGINT)
            out, err = p.communicate(timeout=PATIENCE)
        finally:
            p.kill()
        assert (p.returncode, out, err) == (-signal.SIGINT, b"", b"") and left(m.path) == names
    assert left(store.parent) == ["mounts", "s.npk"]


def test_a_full_disk_leaves_nothing(tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = run("bench", "-s", "4M", tmp_path, preexec_fn=limit, restore_signals=False)
    assert done.returncode == FAILED and b"save: " in done.stderr and done.stderr.count(b"\n") == 1, done
    assert left(tmp_path) == []


def test_nonsense(store, tmp_path):
    for words in (["-n", "0"], ["-n", "1001"], ["-n", "x"], ["-s", "1T"], ["-s", "100"], ["-s", ""], ["-w", "0"], ["-w", "1e3"], ["-c", "-1"],
                  ["-c", "100001"], ["-s", "99999999999G"]):
        assert f"'{words[1]}' is not a number from " in refused(USAGE, "bench", *words, tmp_path)
    assert "is for a mount" in refused(USAGE, "bench", "-W", store)
    assert "'x' is one operand too many" in refused(USAGE, "bench", tmp_path, "x")
    assert "No such file" in refused(FAILED, "bench", tmp_path / "nothing")
    assert refused(USAGE, "bench", store, "big", "small")
    assert left(tmp_path) == ["s.npk"] and os.path.isdir(store)
