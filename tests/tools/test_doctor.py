"""npk doctor: what it finds is what Python finds in other ways, what is broken is named, and looking changes nothing."""

import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from harness import BAD, PATIENCE, copy_golden, program, require_fuse, untouched, wait_for
from npkrun import good, run
from npkwrite import Spec, write_store

FINE, BROKEN, NONSENSE = 0, 1, 2
LEVELS = ("ok", "warn", "bad")


@pytest.fixture
def store(tmp_path):
    require_fuse()    # else the machine itself is in a bad way
    return write_store(tmp_path / "s.npk", {"x": Spec(np.arange(4000, dtype="<f4").reshape(-1, 4), deleted=[1]),
                                            "flags": Spec(np.arange(9) % 2 == 0)})[0]


def look(*path, status=FINE, **kw):
    """The findings: {(part, check): [object, ...]}. Its counts and the text form say the same."""
    done = run("doctor", "--json", *path, **kw)
    assert (done.returncode, done.stderr) == (status, b""), done
    told = json.loads(done.stdout)
    assert told["path"] == (str(path[0]) if path else None)
    out = {}
    for c in told["checks"]:
        assert set(c) == {"level", "part", "check", "found", "advice"} and c["part"] in ("machine", "store", "mount") and c["found"], c
        assert c["advice"] or c["advice"] is None
        out.setdefault((c["part"], c["check"]), []).append(c)
    for level in LEVELS:
        assert told[level] == sum(c["level"] == level for c in told["checks"])
    assert (told["bad"] > 0) is (status == BROKEN)
    return out


def one(findings, part, check, level):
    found = findings[part, check]
    assert [f["level"] for f in found] == [level], found
    return found[0]["found"]


def test_the_machine():
    require_fuse()
    f = look()
    assert {part for part, _ in f} == {"machine"}
    assert one(f, "machine", "kernel", "ok") == f"Linux {platform.release()} on {platform.machine()}"
    assert one(f, "machine", "/dev/fuse", "ok") == "can be opened"
    assert one(f, "machine", "numpackfs", "ok").startswith(f"{program('numpackfs')}: numpackfs ")
    version = subprocess.run(["fusermount3", "-V"], capture_output=True, text=True).stdout.strip()
    assert one(f, "machine", "fusermount3", "ok") == f"{shutil.which('fusermount3')}: {version}"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = {resource.RLIM_INFINITY: "no limit"}
    assert f["machine", "open files"][0]["found"] == f"{text.get(soft, soft)} (at most {text.get(hard, hard)})"
    maps = pathlib.Path("/proc/sys/vm/max_map_count").read_text().strip()
    assert f["machine", "mappings"][0]["found"].split()[0] == maps


def test_text_and_json_say_the_same(store):
    text = good("doctor", store).decode().splitlines()
    told = [c for found in look(store).values() for c in found]
    assert len(text) == len(told) + 1 and text[-1].startswith("nothing is broken: bad 0, ")
    lines = {(line[:4].strip(), *line[6:].split(": ")[:2]) for line in text[:-1]}
    assert lines == {(c["level"], c["part"], c["check"]) for c in told}


@pytest.mark.parametrize("level, how, status", [("scalar", "warn", FINE), ("sse9", "bad", BROKEN)])
def test_the_level_of_searches(level, how, status):
    require_fuse()
    plain = one(look(), "machine", "search", "ok")
    f = look(status=status, env={**os.environ, "NPKV_LEVEL": level})
    assert f"NPKV_LEVEL={level}" in one(f, "machine", "search", how) and f"this CPU has {plain}" in f["machine", "search"][0]["found"]
    assert f["machine", "search"][0]["advice"] == "unset NPKV_LEVEL"
    version = subprocess.run([str(program("numpackfs")), "-V"], capture_output=True, text=True, env={**os.environ, "NPKV_LEVEL": ""}).stdout
    assert f"\nsimd {plain}\n" in version


def test_limits_and_programs_that_are_missing(tmp_path):
    require_fuse()
    f = look(env={**os.environ, "PATH": str(tmp_path)}, preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1])), status=FINE if os.geteuid() == 0 else BROKEN)
    assert one(f, "machine", "fusermount3", "warn" if os.geteuid() == 0 else "bad").startswith("is not in PATH")
    assert one(f, "machine", "open files", "warn").startswith("256 ")
    alone = tmp_path / "npk"
    shutil.copy2(program("npk"), alone)
    done = subprocess.run([alone, "doctor"], capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "PATH": "/nowhere"})
    assert "\nwarn  machine: numpackfs: is neither beside npk nor in PATH" in done.stdout, done


def test_a_sound_store(store):
    with untouched(store):
        f = look(store)
    assert {part for part, _ in f} == {"machine", "store"}
    assert one(f, "store", "contents", "ok").startswith("2 arrays, ")
    assert one(f, "store", "writer", "ok") == "nobody" and one(f, "store", "journal", "ok").startswith("none")
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(store)], capture_output=True, text=True).stdout.split("/")[0].strip()
    assert f["store", "filesystem"][0]["found"].split(" on ")[0].startswith(kind.rstrip("234"))
    assert f["store", "files without a name"][0]["level"] == f["store", "shared blocks"][0]["level"] == "ok"


@pytest.mark.parametrize("bad", [b for b in BAD if b["kind"] == "store"], ids=lambda b: b["path"])
def test_stores_that_are_not_sound(bad, tmp_path):
    """What npk verify calls damage is bad, and nothing else of these stores is."""
    require_fuse()
    path = copy_golden("bad/" + bad["path"], tmp_path)
    verified = run("verify", "--quiet", path)
    with untouched(path):
        f = look(path, status=FINE if verified.returncode == 0 else BROKEN)
    assert any(c["level"] == "bad" for found in f.values() for c in found) is (verified.returncode != 0)


def test_what_is_no_store(store, tmp_path):
    assert "No such file" in one(look(tmp_path / "nothing", status=BROKEN), "store", "path", "bad")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert one(look(empty), "store", "contents", "warn").startswith("no metadata.npkm")
    good("pack", store, tmp_path / "p.npkg")
    assert one(look(tmp_path / "p.npkg"), "store", "package", "ok").startswith("version 2, 4 files, ")
    os.truncate(tmp_path / "p.npkg", 40)
    assert "p.npkg" in one(look(tmp_path / "p.npkg", status=BROKEN), "store", "package", "bad")


def test_a_mount_and_its_store(store, mount):
    with mount(store, "sync=always", ro=False) as m:
        (m.control("x") / "drop").write_text("0\n")
        with pytest.raises(OSError):
            (m.control("x") / "drop").write_text("99999\n")
        f, by_store = look(m.path), look(store)
        journal = (store / "numpackfs.journal").stat().st_size
        assert [c["check"] for found in f.values() for c in found] == [c["check"] for found in by_store.values() for c in found]
    assert one(f, "mount", "mountpoint", "ok") == f"{m.path}, of {store}"
    assert one(f, "mount", "daemon", "ok").startswith("answers: numpackfs ")
    assert "sync=always" in one(f, "mount", "options", "ok").split(",")
    assert "ERANGE: " in one(f, "mount", "last errors", "warn") and "/drop" in f["mount", "last errors"][0]["found"]
    assert " 2 arrays, " in one(f, "mount", "statistics", "ok") and one(f, "mount", "state", "ok")
    assert one(f, "store", "writer", "ok").startswith(f"pid {m.pid} on ") and f", mounted at {m.path}" in f["store", "writer"][0]["found"]
    assert one(f, "store", "journal", "ok") == f"{journal} bytes, of the writer"
    assert one(f, "store", "other programs", "ok")


def test_a_daemon_that_was_killed(store, mount):
    m = mount.start(store, ro=False)
    try:
        (m.control("x") / "drop").write_text("0\n")
        m.process.kill()
        m.process.wait()
        with untouched(store):
            f = look(m.path, status=BROKEN)
        assert "has ended" in one(f, "mount", "daemon", "bad") and "fusermount3 -u" in f["mount", "daemon"][0]["advice"]
        assert ("mount", "options") not in f
        left = (store / "numpackfs.journal").stat().st_size
        assert one(f, "store", "journal", "warn") == f"{left} bytes, left by a writer that was killed"
        assert one(f, "store", "writer", "ok") == "nobody"
    finally:
        mount.kill(m)
    good("drop", "--rows", "0", store, "x")    # somebody who writes carries it out
    assert one(look(store), "store", "journal", "ok").startswith("none")


def test_a_daemon_that_does_not_answer(store, mount):
    with mount(store) as m:
        os.kill(m.pid, signal.SIGSTOP)
        try:
            f = look(m.path, status=BROKEN)
        finally:
            os.kill(m.pid, signal.SIGCONT)
    assert one(f, "mount", "daemon", "bad") == "does not answer within 10 seconds"
    assert one(f, "store", "contents", "ok")


def test_a_program_that_knows_no_lock(store):
    data = next(store.glob("data_x.npkd"))
    code = "import sys; f = open(sys.argv[1], 'r+b'); print('open', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"open\n"
        f = look(store)
        assert one(f, "store", "other programs", "warn").startswith(f"pid {other.pid} (") and "data_x.npkd" in f["store", "other programs"][0]["found"]
    finally:
        other.stdin.close()
        other.wait(PATIENCE)
        other.stdout.close()
    with open(data, "rb"):    # reading is no harm
        assert one(look(store), "store", "other programs", "ok")


def test_where_nothing_lasts(store):
    if subprocess.run(["stat", "-f", "-c", "%T", "/dev/shm"], capture_output=True, text=True).stdout.strip() != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shm:
        shutil.copytree(store, pathlib.Path(shm) / "s.npk")
        assert one(look(pathlib.Path(shm) / "s.npk"), "store", "filesystem", "warn").startswith("tmpfs on /dev/shm")


def test_another_user(store):
    """Who may not write is told so; a mount of somebody else is not looked into."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        base = pathlib.Path(base)
        shutil.copy2(program("npk"), base)
        shutil.copytree(store, base / "s.npk")
        subprocess.run(["chmod", "-R", "a+rX", str(base)], check=True)
        done = subprocess.run([base / "npk", "doctor", "-j", base / "s.npk"], capture_output=True, timeout=PATIENCE, user=65534, group=65534,
                              extra_groups=[], cwd="/")
        told = {(c["part"], c["check"]): c for c in json.loads(done.stdout)["checks"]}
    assert told["machine", "right to mount"]["found"] == "uid 65534 mounts by fusermount3"
    assert told["store", "directory"]["level"] == "warn" and "uid 65534 cannot write" in told["store", "directory"]["found"]
    assert told["store", "contents"]["level"] == "ok" and ("store", "shared blocks") not in told


def test_nonsense(store):
    for words in (["--frobnicate"], [store, store], ["--json=1"]):
        done = run("doctor", *words)
        assert (done.returncode, done.stdout) == (NONSENSE, b"") and done.stderr.startswith(b"npk doctor: "), done


def test_names_are_shown_escaped(tmp_path, mount):
    """What a path or a store says never reaches the terminal's control language."""
    odd = tmp_path / "a\x1b[31m b.npk"
    write_store(odd, {"x": Spec(np.arange(4))})
    with mount(odd) as m:
        out = good("doctor", m.path)
        wait_for("the mount is told", lambda: b"a\\x1B[31m b.npk" in out)
    assert b"\x1b" not in out
