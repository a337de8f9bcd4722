"""npk top: its rates are the growth of the mount's counters, and a terminal gets a screen, everything else plain text."""

import json
import os
import pty
import re
import signal
import subprocess

import numpy as np
import pytest

from harness import PATIENCE, program, wait_for
from npkrun import FAILED, OK, USAGE, good, refused
from npkwrite import Spec, write_store

BOUNDS = {round(m * 10.0 ** e, 3) for m in (1, 2.5, 5) for e in range(5)}    # of the mount's histogram, in microseconds


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "s.npk", {"x": Spec(np.arange(4000, dtype="<f4").reshape(-1, 4))})[0]


def counters(m):
    """What the mount's own file says, read by nobody's parser but this one."""
    text = (m.path / ".numpack" / "stats").read_text()
    return json.loads(text)


def test_rates_are_the_growth_of_counters(store, mount):
    with mount(store, "rw,sync=always") as m:
        (m.control("x") / "drop").write_text("0\n")
        journal = store / "numpackfs.journal"
        first = counters(m)
        top = subprocess.Popen([str(program("npk")), "top", "--json", "-n", "3", "-d", "0.3", str(m.path)], stdout=subprocess.PIPE)
        while top.poll() is None:    # always something to count
            with open(m.path / "x.npy", "rb", buffering=0) as f:
                assert len(f.read(4096)) == 4096
            with pytest.raises(OSError):
                os.stat(m.path / ".numpack" / "arrays" / "nobody")
        lines = [json.loads(line) for line in top.stdout.read().splitlines()]
        last, size = counters(m), journal.stat().st_size
    assert top.returncode == OK and len(lines) == 3
    for i, line in enumerate(lines):
        assert line["mountpoint"] == str(m.path) and line["store"] == str(store) and line["arrays"] == 1
        assert "sync=always" in line["options"].split(",")
        assert line["seconds"] >= 0.3 and line["peak_resident_bytes"] > 0
        assert set(line["requests"]) == set(first["requests"])
        assert line["journal_bytes"] == size    # nothing has changed since
        latency = line["read_latency"]
        if latency["count"]:
            assert latency["mean_us"] > 0
            assert {latency["p50_us"], latency["p99_us"]} <= BOUNDS | {None}
        for kind, told in line["requests"].items():
            assert first["requests"][kind]["count"] <= told["count"] <= last["requests"][kind]["count"]
            assert first["requests"][kind]["errors"] <= told["errors"] <= last["requests"][kind]["errors"]
            if i > 0:
                before = lines[i - 1]["requests"][kind]
                for count, rate in (("count", "per_second"), ("errors", "errors_per_second")):
                    # seconds and rates are rounded to the third digit behind the point
                    grown = told[count] - before[count]
                    assert told[rate] * line["seconds"] == pytest.approx(grown, rel=0.003, abs=0.01), (kind, line)


def test_batches_are_plain_and_count_what_was_asked(store, mount):
    with mount(store) as m:
        (m.path / "x.npy").read_bytes()
        out = good("top", "-b", "-n", "2", "-d", "0.05", m.path).decode()
        asked = good("top", "-n", "1", "-d", "0.05", store).decode()      # a pipe: as --batch; the store will do
    assert "\x1b" not in out + asked
    screens = out.split("\n\n" + str(m.path))
    assert len(screens) == 2
    for text in [*screens, asked]:
        assert "options: none but the built-in ones" in text or "options: " in text
        row = re.search(r"^read +[0-9.]+ +[0-9.]+ +([0-9]+) +([0-9]+)$", text, re.MULTILINE)
        assert int(row[1]) >= 1 and int(row[2]) == 0
        assert re.search(r"^REQUEST +/s +errors/s +all +errors$", text, re.MULTILINE)


def test_a_terminal_gets_one_screen_after_the_other(store, mount):
    with mount(store) as m:
        for batch, coloured in (([], True), (["--batch"], False)):
            parent, child = pty.openpty()
            top = subprocess.Popen([str(program("npk")), "top", *batch, "-n", "2", "-d", "0.05", str(m.path)], stdout=child)
            os.close(child)
            out = b""
            try:
                while got := os.read(parent, 65536):
                    out += got
            except OSError:    # EIO: the other end is closed
                pass
            os.close(parent)
            assert top.wait(PATIENCE) == OK
            assert out.count(b"REQUEST") == 2
            assert (out.count(b"\x1b[H"), out.count(b"\x1b[2J")) == ((2, 1) if coloured else (0, 0))
            assert (b"\x1b" in out) is coloured


def test_it_ends_with_the_mount(store, mount):
    with mount(store) as m:
        top = subprocess.Popen([str(program("npk")), "top", "-j", "-d", "0.02", str(m.path)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        top.stdout.readline()
        wait_for("the mount ends", lambda: subprocess.run([str(program("npk")), "umount", str(m.path)], capture_output=True).returncode == OK)
        _, err = top.communicate(timeout=PATIENCE)
    assert top.returncode == FAILED and err.startswith(b"npk top: ") and b".numpack/" in err and err.count(b"\n") == 1


def test_a_signal_ends_it(store, mount):
    with mount(store) as m:
        top = subprocess.Popen([str(program("npk")), "top", "-d", "0.02", str(m.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        top.stdout.readline()
        top.send_signal(signal.SIGTERM)
        _, err = top.communicate(timeout=PATIENCE)
    assert (top.returncode, err) == (-signal.SIGTERM, b"")


def test_what_it_does_not_understand(store):
    assert "is not mounted" in refused(FAILED, "top", store)
    for options in (["-d", "0"], ["-d", "x"], ["-d", "1e9"], ["-d", "nan"], ["-n", "0"], ["-n", "-1"], ["-n", "2x"]):
        assert options[1] in refused(USAGE, "top", *options, store)
