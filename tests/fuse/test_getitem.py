"""getitem: write a query, read the answer on the same handle. From every kind of program that can hold a file open."""

import contextlib
import errno
import io
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from harness import expect_error, same, wait_for
from npkwrite import Spec, write_store

X = np.arange(600, dtype="i4").reshape(100, 6)
HOLES = [0, 1, 50]


@pytest.fixture(scope="module")
def store(tmp_path_factory, watchdog):
    from harness import Mounter

    base = tmp_path_factory.mktemp("getitem")
    path, specs = write_store(base / "s.npk", {
        "x": Spec(X, deleted=HOLES), "f": np.linspace(0, 1, 7), "b": np.array([True, False, True]),
        "big": np.arange(500_000, dtype="f8").reshape(-1, 5), "m": np.arange(97) % 3 == 0})
    mounter = Mounter(base / "mounts", watchdog, life=3600)
    m = mounter.start(path)
    yield m, {n: s.logical() for n, s in specs.items()}
    mounter.stop(m)


def ask(path, line):
    with open(path, "r+b", buffering=0) as f:
        assert f.write(line) == len(line)
        return b"".join(iter(lambda: f.read(65536), b""))


@contextlib.contextmanager
def conversation(path, at_close=None):
    """An open query file. The error that its last write got is told by close(2) again: programs that lose the one see the
    other (principle 3 of the interface)."""
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    if at_close:
        expect_error(at_close, os.close, fd)
    else:
        os.close(fd)


def npy_of(reply):
    stream = io.BytesIO(reply)
    out = np.load(stream)
    assert stream.read() == b"", "something follows the array"
    return out


@pytest.mark.parametrize("selection, pick", [
    ("0:10", lambda x: x[:10]), ("5", lambda x: x[[5]]), ("-1", lambda x: x[[-1]]), ("::-1", lambda x: x[::-1]),
    ("3,1,2", lambda x: x[[3, 1, 2]]), ("0:10;1,2", lambda x: x[np.ix_(range(10), [1, 2])]), ("all", lambda x: x),
    ("1+2@0", lambda x: x[np.ix_([1, 2], [0])]), ("mask=m", lambda x: x[np.arange(97) % 3 == 0]), ("5:5", lambda x: x[5:5]),
])
def test_the_answer_is_an_npy_stream(selection, pick, store):
    m, arrays = store
    for line in (f"sel={selection}\n", f"sel={selection} fmt=npy\n", f'  sel="{selection}"  fmt="npy" \n'):
        same(npy_of(ask(m.control("x") / "getitem", line.encode())), pick(arrays["x"]))


def test_blanks_join_items_in_quotes(store):
    m, arrays = store
    same(npy_of(ask(m.control("x") / "getitem", b'sel="0 2 4:6; 1 3"\n')), arrays["x"][np.ix_([0, 2, 4, 5], [1, 3])])


def test_text_is_one_line_a_row(store):
    m, arrays = store
    text = ask(m.control("x") / "getitem", b"sel=0:5;0:3 fmt=text\n").decode()
    assert [[int(n) for n in line.replace(",", " ").split()] for line in text.splitlines()] == arrays["x"][:5, :3].tolist()
    text = ask(m.control("f") / "getitem", b"sel=all fmt=text\n").decode()
    assert [float(line) for line in text.splitlines()] == arrays["f"].tolist()


def test_json(store):
    import json
    m, arrays = store
    got = json.loads(ask(m.control("x") / "getitem", b"sel=0:2 fmt=json\n"))
    assert arrays["x"][:2].tolist() in (got, *(v for v in got.values() if isinstance(got, dict))) if isinstance(got, dict) \
        else got == arrays["x"][:2].tolist()


def test_a_large_answer(store):
    """Larger than any one read: 4 MB, and the answer does not change the daemon's promise about memory for long."""
    m, arrays = store
    same(npy_of(ask(m.control("big") / "getitem", b"sel=all\n")), arrays["big"])
    same(npy_of(ask(m.control("big") / "getitem", b"sel=::-1\n")), arrays["big"][::-1])


def test_one_handle_many_questions(store):
    """The reply to the last write replaces the previous one, whether the reader goes on or starts at 0 again."""
    m, arrays = store
    with open(m.control("x") / "getitem", "r+b", buffering=0) as f:
        for i in range(50):
            f.write(b"sel=%d fmt=npy\n" % i)
            if i % 3 == 0:
                f.seek(0)
                got = f.read(1 << 20)
            elif i % 3 == 1:
                got = f.read(1 << 20)
            else:
                got = os.pread(f.fileno(), 1 << 20, 0)
            same(npy_of(got), arrays["x"][[i]])


def test_numpy_reads_from_the_handle_itself(store):
    """After seek(0): numpy's own C buffering reads from the page's start on, so offsets must count from the reply's byte 0."""
    m, arrays = store
    with open(m.control("x") / "getitem", "r+b", buffering=0) as f:
        for i in (3, 4, 5):
            f.seek(0)
            f.write(b"sel=%d,%d,%d\n" % (i, i + 1, i))
            f.seek(0)
            same(np.load(f), arrays["x"][[i, i + 1, i]])


def test_pread_is_absolute(store):
    m, arrays = store
    with open(m.control("x") / "getitem", "r+b", buffering=0) as f:
        f.write(b"sel=0:4\n")
        whole = os.pread(f.fileno(), 1 << 20, 0)
        for off in (1, 5, 64, 128, len(whole) - 1, len(whole), len(whole) + 9):
            assert os.pread(f.fileno(), 10, off) == whole[off:off + 10]
        same(npy_of(whole), arrays["x"][:4])


def test_reading_on_ends_with_eof(store):
    m, arrays = store
    with open(m.control("x") / "getitem", "r+b", buffering=0) as f:
        f.write(b"sel=1\n")
        pieces = []
        while piece := f.read(10):
            pieces.append(piece)
        assert f.read(10) == b""
        same(npy_of(b"".join(pieces)), arrays["x"][[1]])


@pytest.mark.parametrize("line, code", [
    (b"sel=97\n", errno.ERANGE), (b"sel=-98\n", errno.ERANGE), (b"sel=0;6\n", errno.ERANGE), (b"sel=1:2:0\n", errno.EINVAL),
    (b"sel=x\n", errno.EINVAL), (b"nonsense\n", errno.EINVAL), (b"sel=0 fmt=xml\n", errno.EINVAL), (b"\xff\xfe\n", errno.EINVAL),
    (b"sel=0 sel\n", errno.EINVAL), (b'sel="0\n', errno.EINVAL), (b"sel=0;0;0\n", errno.EINVAL), (b"sel=0 k=3\n", errno.EINVAL),
    (b"sel=0\x000\n", errno.EINVAL), (b"sel=mask=nothing\n", None),
])
def test_errors_are_those_of_the_write_and_can_be_read(line, code, store):
    m, arrays = store
    with conversation(m.control("x") / "getitem") as fd:
        with pytest.raises(OSError) as e:
            os.write(fd, line)
        assert e.value.errno in ([code] if code else [errno.EINVAL, errno.ENOENT]), e.value
        name = errno.errorcode[e.value.errno]
        reply = os.pread(fd, 4096, 0).decode(errors="replace")
        assert reply.startswith(f"ERR {name} ") and reply.endswith("\n") and len(reply) > len(name) + 8, reply
        assert len(reply.splitlines()) == 1, reply
        last = m.last_errors()[-1]
        assert last["errno"] == name and last["message"] in reply, (last, reply)
        assert last["path"].endswith("x/getitem") and last["pid"] == os.getpid(), last
        # The same handle goes on, and the next good write clears the error.
        os.write(fd, b"sel=2\n")
        same(npy_of(os.pread(fd, 4096, 0)), arrays["x"][[2]])


def test_close_tells_the_error_once_more(store):
    m, _ = store
    with conversation(m.control("x") / "getitem", at_close=errno.ERANGE) as fd:
        expect_error(errno.ERANGE, os.write, fd, b"sel=12345\n")


def test_a_line_that_is_too_long(store):
    """What was written of it is forgotten: a command that was cut off never runs."""
    m, _ = store
    with conversation(m.control("x") / "getitem", at_close=errno.E2BIG) as fd:
        def write_on():
            os.write(fd, b"sel=0,")
            for _ in range(64):
                os.write(fd, b"0," * 32768)

        expect_error(errno.E2BIG, write_on)
        assert os.pread(fd, 4096, 0).startswith(b"ERR E2BIG ")


def test_a_long_list(store):
    """Longer than any file name, in one write and in two."""
    m, arrays = store
    rows = np.random.default_rng(3).integers(-97, 97, 20_000)
    line = b"sel=" + ",".join(map(str, rows)).encode() + b"\n"
    same(npy_of(ask(m.control("x") / "getitem", line)), arrays["x"][rows])
    with open(m.control("x") / "getitem", "r+b", buffering=0) as f:
        f.write(line[:5000])
        f.write(line[5000:])
        same(npy_of(b"".join(iter(lambda: f.read(1 << 20), b""))), arrays["x"][rows])


def test_several_lines_the_last_one_answers(store):
    m, arrays = store
    same(npy_of(ask(m.control("x") / "getitem", b"sel=1\nsel=2\nsel=3\n")), arrays["x"][[3]])


def test_a_bad_line_among_good_ones_runs_nothing(store):
    """A write with several lines is parsed as a whole before anything runs."""
    m, _ = store
    with conversation(m.control("x") / "getitem", at_close=errno.EINVAL) as fd:
        expect_error(errno.EINVAL, os.write, fd, b"sel=1\nsel=bad:bad\n")


def test_a_run_time_error_in_line_n(store):
    """The byte count of the lines before comes back, and the retry of the rest gets the error."""
    m, _ = store
    with conversation(m.control("x") / "getitem", at_close=errno.ERANGE) as fd:
        good, bad = b"sel=1\nsel=2\n", b"sel=5000\n"
        assert os.write(fd, good + bad) == len(good)
        expect_error(errno.ERANGE, os.write, fd, bad)


def test_conversations_are_private(store):
    m, arrays = store
    handles = [open(m.control("x") / "getitem", "r+b", buffering=0) for _ in range(20)]
    for i, h in enumerate(handles):
        h.write(b"sel=%d\n" % i)
    for i, h in enumerate(handles):
        same(npy_of(os.pread(h.fileno(), 4096, 0)), arrays["x"][[i]])
        h.close()


def test_conversations_in_threads(store):
    m, arrays = store
    wrong = []

    def talk(seed):
        rng = np.random.default_rng(seed)
        with open(m.control("x") / "getitem", "r+b", buffering=0) as f:
            for _ in range(40):
                rows = rng.integers(0, 97, 5)
                f.write(b"sel=" + ",".join(map(str, rows)).encode() + b"\n")
                f.seek(0)
                if not np.array_equal(npy_of(f.read(1 << 20)), arrays["x"][rows]):
                    wrong.append((seed, rows))

    threads = [threading.Thread(target=talk, args=(s,)) for s in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_o_trunc_and_o_append_are_ignored(store):
    m, arrays = store
    for flags in (os.O_TRUNC, os.O_APPEND, os.O_CREAT, os.O_TRUNC | os.O_CREAT | os.O_APPEND):
        fd = os.open(m.control("x") / "getitem", os.O_RDWR | flags, 0o644)
        os.write(fd, b"sel=4\n")
        same(npy_of(os.pread(fd, 4096, 0)), arrays["x"][[4]])
        os.close(fd)


# --- from shells and languages: the example of interface.md, as those programs really behave ---


SHELL = """
exec 3<>"$1"
echo 'sel=0:3;0:2 fmt=text' >&3 || exit 9
cat <&3
echo 'sel=-1;0 fmt=text' >&3 || exit 9
while read -r line <&3; do echo "last $line"; done
if echo 'sel=nonsense' >&3 2>/dev/null; then echo "no error"; exit 9; fi
exec 3>&-
"""


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_shell(shell, store, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    m, arrays = store
    out = subprocess.run([shell, "-c", SHELL, "sh", str(m.control("x") / "getitem")], check=True, stdout=subprocess.PIPE,
                         text=True).stdout
    numbers = [[int(n) for n in line.replace("last", "").replace(",", " ").split()] for line in out.splitlines()]
    assert numbers == arrays["x"][:3, :2].tolist() + [[int(arrays["x"][-1, 0])]], out


def test_python_buffered(store):
    """The ordinary open(), with a buffer that reads ahead and writes late."""
    m, arrays = store
    with open(m.control("x") / "getitem", "r+b") as f:
        for i in (3, 90, 4):
            f.seek(0)
            f.write(b"sel=%d\n" % i)
            f.flush()
            f.seek(0)
            same(npy_of(f.read()), arrays["x"][[i]])


def test_python_text(store):
    m, arrays = store
    fd = os.open(m.control("x") / "getitem", os.O_RDWR)
    with os.fdopen(os.dup(fd), "w") as w, os.fdopen(fd, "r") as r:
        w.write("sel=7;1 fmt=text\n")
        w.flush()
        assert int(r.read()) == arrays["x"][7, 1]


def test_python_buffered_sees_the_error(store):
    """The failing flush is an exception, also at the end of `with`."""
    m, _ = store
    with pytest.raises(OSError) as e:
        with open(m.control("x") / "getitem", "r+b") as f:
            f.write(b"sel=12345\n")
    assert e.value.errno == errno.ERANGE


def test_a_last_line_without_newline_runs_at_flush(store):
    m, arrays = store
    fd = os.open(m.control("x") / "getitem", os.O_RDWR)
    os.write(fd, b"sel=9")
    os.close(os.dup(fd))        # a FLUSH by the process that wrote it
    same(npy_of(os.pread(fd, 4096, 0)), arrays["x"][[9]])
    os.close(fd)


def test_a_write_only_handle_gets_errors(store):
    m, _ = store
    assert subprocess.run(["sh", "-c", 'echo sel=0 > "$1"', "sh", str(m.control("x") / "getitem")]).returncode == 0
    bad = subprocess.run(["sh", "-c", 'echo sel=5000 > "$1"', "sh", str(m.control("x") / "getitem")], stderr=subprocess.PIPE)
    assert bad.returncode != 0


NODE = """
const fs = require('fs');
const fd = fs.openSync(process.argv[1], 'r+');
const out = [];
for (const [sel, position] of [['0;0', 0], ['1;1', null], ['2;2', 0], ['3;3', null]]) {
  fs.writeSync(fd, `sel=${sel} fmt=text\\n`);
  const b = Buffer.alloc(65536), n = fs.readSync(fd, b, 0, b.length, position);
  out.push(Number(b.toString('utf8', 0, n)));
}
let code = '';
try { fs.writeSync(fd, 'sel=7000\\n'); } catch (e) { code = e.code; }
console.log(JSON.stringify([out, code]));
try { fs.closeSync(fd); } catch (e) { }         // tells it once more
"""


def test_node(store):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    m, arrays = store
    out = subprocess.run(["node", "-e", NODE, str(m.control("x") / "getitem")], check=True, stdout=subprocess.PIPE, text=True).stdout
    import json
    assert json.loads(out) == [[int(arrays["x"][i, i]) for i in range(4)], "ERANGE"]


def test_a_reader_that_is_killed_in_a_conversation(store):
    m, arrays = store
    code = "import os,sys,time; f=os.open(sys.argv[1],os.O_RDWR); os.write(f,b'sel=all\\n'); print(1,flush=True); time.sleep(60)"
    for _ in range(5):
        p = subprocess.Popen([sys.executable, "-c", code, str(m.control("big") / "getitem")], stdout=subprocess.PIPE)
        p.stdout.readline()
        p.kill()
        p.wait()
        p.stdout.close()
    wait_for("others go on", lambda: ask(m.control("x") / "getitem", b"sel=0\n"))
