"""Programs that people have, really run: editors, compressors, git, what counts and compares, what is killed in the middle or finds
the disk full. Whatever they do, an array is whole: the old one or the new one."""

import io
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

from harness import BUILD, PATIENCE, clean_environment, mounted, same, saved, say, wait_for

TEXT = np.frombuffer(b"one two one two\nthree four\n" * 5, "u1")
CHANGED = np.frombuffer(TEXT.tobytes().replace(b"one", b"ONE"), "u1")
ZEROES = np.zeros((50_000, 4))
RANDOM = np.random.default_rng(41).random((30_000, 4))
STORED = {"text": TEXT, "x": RANDOM}
VIM = shutil.which("vim") or shutil.which("vim.tiny")


def need(*programs):
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")


def run(*argv, **kw):
    return subprocess.run([str(a) for a in argv], **{"check": True, "timeout": PATIENCE, **kw})


def refused(*argv, **kw):
    """What a program that must fail says."""
    done = run(*argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "LC_ALL": "C"}, **kw)
    assert done.returncode != 0, f"{argv} went well: {done.stdout}"
    return done.stdout


def elsewhere(path):
    """Read by another process: what a writer staged is seen by itself."""
    return np.load(io.BytesIO(run("cat", path, stdout=subprocess.PIPE).stdout))


# --- editors ----------------------------------------------------------------------------------------------------------


def vim(path, *commands):
    if not VIM:
        pytest.skip("vim is not installed")
    words = [w for c in (*commands, "wq") for w in ("-c", c)]
    return [VIM, "-b", "-u", "NONE", "-i", "NONE", "-es", *words, path]


@pytest.mark.parametrize("copy", ["auto", "yes", "no"])
@pytest.mark.parametrize("kept", [False, True])
def test_vim_saves_an_array(rw, copy, kept):
    run(*vim(rw.array("text"), f"set backupskip= backupcopy={copy} {'backup' if kept else 'nobackup writebackup'}", "%s/one/ONE/g"))
    same(rw.load("text"), CHANGED)
    assert sorted(os.listdir(rw.path)) == ["text.npy"] + ["text.npy~"] * kept + ["x.npy"]
    if kept:
        assert (rw.path / "text.npy~").read_bytes() == saved(TEXT)


@pytest.mark.parametrize("copy", ["auto", "yes", "no"])
def test_vim_is_told_of_too_many_bytes(rw, copy):
    """More than the header promises: it puts back what was there."""
    refused(*vim(rw.array("text"), f"set backupskip= backupcopy={copy}", "%s/one/seven/g"))
    wait_for("what vim wrote is gone", lambda: any(e["errno"] == "EFBIG" for e in rw.last_errors()))
    same(elsewhere(rw.array("text")), TEXT)
    assert [n for n in sorted(os.listdir(rw.path)) if not n.endswith("~")] == ["text.npy", "x.npy"]


@pytest.mark.parametrize("copy", ["yes", "no"])
def test_vim_saves_too_few_bytes(rw, copy):
    """Where it writes over the array that stays; where it wants a new file it takes the array away itself, and what it wrote is
    there, as incomplete."""
    run(*vim(rw.array("text"), f"set backupskip= backupcopy={copy}", "%s/one/1/g"))
    if copy == "yes":
        wait_for("what vim wrote is gone", lambda: any("incomplete" in e["message"] for e in rw.last_errors()))
        same(elsewhere(rw.array("text")), TEXT)
    else:
        assert rw.array("text").read_bytes() == saved(TEXT).replace(b"one", b"1")
        assert os.getxattr(rw.array("text"), "user.numpack.state") == b"incomplete"
    assert sorted(os.listdir(rw.path)) == ["text.npy", "x.npy"]


def test_vim_beside_a_reader_writes_in_place(rw):
    """It opens without O_TRUNC; ftruncate(2) cannot make a mapped file shorter."""
    old = rw.load("text", mmap_mode="r")
    run(*vim(rw.array("text"), "set nowritebackup", "%s/one/ONE/g"))
    same(old, CHANGED)
    same(rw.load("text"), CHANGED)


def test_vim_edits_and_makes_text_files(rw):
    notes = rw.path / "notes.txt"
    notes.write_text("one two\n")
    run(*vim(notes, "%s/one/1/"))
    assert notes.read_text() == "1 two\n"
    run(*vim(rw.path / "new.txt", "normal ihello"))
    assert (rw.path / "new.txt").read_text() == "hello\n"
    assert sorted(os.listdir(rw.path)) == ["new.txt", "notes.txt", "text.npy", "x.npy"]


@pytest.mark.parametrize("argv", [["sed", "-i", "s/one/ONE/g"], ["perl", "-pi", "-e", "s/one/ONE/g"]], ids=lambda a: a[0])
def test_filters_in_place(rw, argv):
    need(argv[0])
    old = rw.load("text", mmap_mode="r")
    run(*argv, rw.array("text"))
    same(rw.load("text"), CHANGED)
    same(old, TEXT)
    longer = [w.replace("ONE", "seven").replace("one", "ONE") for w in argv]
    assert "Invalid argument" in refused(*longer, rw.array("text"))
    same(rw.load("text"), CHANGED)
    assert "text.npy" in sorted(os.listdir(rw.path))


# --- what packs and unpacks -------------------------------------------------------------------------------------------


def packed(tmp_path, array, *argv):
    np.save(tmp_path / "a.npy", array)
    with open(tmp_path / "packed", "wb") as f:
        run(*argv, stdin=open(tmp_path / "a.npy", "rb"), stdout=f)
    return tmp_path / "packed"


@pytest.mark.parametrize("program", ["gzip", "zstd"])
@pytest.mark.parametrize("array", [ZEROES, RANDOM], ids=["zeroes", "random"])
def test_unpacked_into_an_array(rw, tmp_path, program, array):
    """To stdout and, with zstd, to a name: there it leaves holes out, which are zeroes."""
    need(program)
    source = packed(tmp_path, array, program, "-c")
    for _ in range(2):
        with open(rw.array("new"), "wb") as f:
            run(program, "-dc", stdin=open(source, "rb"), stdout=f)
        assert rw.array("new").read_bytes() == saved(array)
    if program == "zstd":
        for _ in range(2):
            run("zstd", "-q", "-d", "-f", source, "-o", rw.array("named"))
            assert rw.array("named").read_bytes() == saved(array)
    run(program, "-q", rw.array("new"))          # beside it, and zstd keeps the array
    kept = rw.array("new").exists()
    assert kept == (program == "zstd")
    if kept:
        os.unlink(rw.array("new"))
    run(program, "-q", "-d", next(rw.path.glob("new.npy.*")))
    same(rw.load("new"), array)


def test_git_tracks_a_mount(rw, tmp_path):
    """The repository lies elsewhere: a mount has no directories. What is unchanged is seen as such; a checkout saves it back."""
    need("git")
    env = {**clean_environment(tmp_path), "GIT_DIR": str(tmp_path / "git"), "GIT_WORK_TREE": str(rw.path),
           **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}}

    def git(*words):
        return run("git", *words, env=env, stdout=subprocess.PIPE, text=True).stdout.split()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "1")
    assert git("status", "--short") == git("status", "--short") == []
    say(rw.control("x") / "drop", "0\n")
    assert git("status", "--short") == ["M", "x.npy"]
    np.save(rw.array("text"), CHANGED)          # as many bytes
    assert git("status", "--short") == ["M", "text.npy", "M", "x.npy"]
    git("checkout", "-q", ".")
    assert git("status", "--short") == []
    same(rw.load("x"), RANDOM)
    same(rw.load("text"), TEXT)
    git("mv", "text.npy", "letters.npy")
    assert git("status", "--short") == ["R", "text.npy", "->", "letters.npy"]
    git("reset", "-q", "--hard")
    assert git("status", "--short") == [] and sorted(os.listdir(rw.path)) == ["text.npy", "x.npy"]
    same(rw.load("text"), TEXT)


def test_who_reads(rw, tmp_path):
    need("file", "split")
    np.save(tmp_path / "x.npy", RANDOM)
    plain, path = tmp_path / "x.npy", rw.array("x")

    def both(*argv):
        told = [run("sh", "-c", " ".join(argv), stdin=open(p, "rb"), stdout=subprocess.PIPE, env={**os.environ, "F": str(p)}).stdout
                for p in (plain, path)]
        assert told[0] == told[1] and told[0], argv
        return told[0]

    for argv in ("sha256sum", "tail -c 100000 $F", "head -c 1000 $F", "wc -c < $F", "od -j 900000 $F", "dd if=$F bs=777 skip=3 status=none",
                 "file -b $F", "stat -c '%s %F' $F", "tac $F", "cksum < $F", "sort $F | md5sum", "cmp $F - < $F && echo same",
                 "find $F -size 960128c -printf %s", "du --apparent-size -b $F | cut -f1"):
        both(argv)
    run("split", "-n", "3", path, rw.path / "part.")
    run("sh", "-c", f"cat {rw.path}/part.* > {rw.array('y')}")
    assert rw.array("y").read_bytes() == plain.read_bytes()


# --- other languages' own file calls ----------------------------------------------------------------------------------

NODE = r"""
import fs from 'node:fs'; import { pipeline } from 'node:stream/promises'; import assert from 'node:assert'
const [mount, file] = process.argv.slice(2), bytes = fs.readFileSync(file), at = n => `${mount}/${n}.npy`
await pipeline(fs.createReadStream(file, { highWaterMark: 1000 }), fs.createWriteStream(at('stream')))
await pipeline(fs.createReadStream(at('stream')), fs.createWriteStream(at('again')))
await fs.promises.writeFile(at('promised'), bytes)
fs.copyFileSync(file, at('copied')); fs.copyFileSync(at('copied'), at('cloned')); fs.cpSync(file, at('cp'))
fs.writeFileSync(`${mount}/.tmp`, bytes); fs.renameSync(`${mount}/.tmp`, at('renamed'))
for (const n of ['stream', 'again', 'promised', 'copied', 'cloned', 'cp', 'renamed']) assert(fs.readFileSync(at(n)).equals(bytes), n)
const row = bytes.subarray(128, 160)
fs.appendFileSync(at('stream'), row); assert.equal(fs.statSync(at('stream')).size, bytes.length + 32)
fs.truncateSync(at('stream'), bytes.length); assert(fs.readFileSync(at('stream')).equals(bytes))
assert.throws(() => fs.writeFileSync(at('bad'), 'no array'), { code: 'EINVAL' }); fs.unlinkSync(at('bad'))
const fd = fs.openSync(`${mount}/.numpack/arrays/stream/drop`, 'r+'), answer = Buffer.alloc(1000)
const said = position => answer.toString('utf8', 0, fs.readSync(fd, answer, 0, 1000, position))
fs.writeSync(fd, '0:10\n'); assert.match(said(null), /^OK drop rows=10 generation=\d+\n$/)
assert.throws(() => fs.writeSync(fd, '9999999\n'), { code: 'ERANGE' }); assert.match(said(0), /^ERR ERANGE .*9999999/)
fs.writeSync(fd, '0\n'); fs.closeSync(fd)
assert(fs.readFileSync(at('stream')).subarray(128).equals(bytes.subarray(128 + 11 * 32)))
"""


def test_node_writes(rw, tmp_path):
    need("node")
    np.save(tmp_path / "a.npy", RANDOM)
    (tmp_path / "write.mjs").write_text(NODE)
    run("node", tmp_path / "write.mjs", rw.path, tmp_path / "a.npy")
    same(rw.load("stream"), RANDOM[11:])
    same(rw.load("cloned"), RANDOM)
    assert sorted(os.listdir(rw.path)) == sorted(f"{n}.npy" for n in ("again", "cloned", "copied", "cp", "promised", "renamed", "stream",
                                                                     "text", "x"))


GO = """package main
import ("bytes"; "io"; "os"; "syscall")
func must(err error) { if err != nil { panic(err) } }
func main() {
	mount, file := os.Args[1], os.Args[2]
	all, err := os.ReadFile(file); must(err)
	must(os.WriteFile(mount + "/whole.npy", all, 0o644))
	in, err := os.Open(file); must(err)
	out, err := os.Create(mount + "/copied.npy"); must(err)
	_, err = io.Copy(out, in); must(err); must(out.Close())
	in, err = os.Open(mount + "/copied.npy"); must(err)
	out, err = os.CreateTemp(mount, "t*"); must(err)
	_, err = io.Copy(out, in); must(err); must(out.Sync()); must(out.Close())
	must(os.Rename(out.Name(), mount + "/moved.npy"))
	f, err := os.OpenFile(mount + "/whole.npy", os.O_RDWR, 0); must(err)
	m, err := syscall.Mmap(int(f.Fd()), 0, len(all), syscall.PROT_READ | syscall.PROT_WRITE, syscall.MAP_SHARED); must(err)
	if !bytes.Equal(m, all) { panic("the map differs") }
	for i := 128; i < 160; i++ { m[i] = 0 }
	must(syscall.Munmap(m)); must(f.Sync()); must(f.Close())
	f, err = os.OpenFile(mount + "/whole.npy", os.O_APPEND | os.O_WRONLY, 0); must(err)
	_, err = f.Write(all[128:192]); must(err); must(f.Close())
}
"""


# Go's library is compiled the first time.
@pytest.mark.timeout(600)
def test_go_writes(rw, tmp_path):
    need("go")
    from test_clients import go_environment
    np.save(tmp_path / "a.npy", RANDOM)
    (tmp_path / "write.go").write_text(GO)
    run("go", "run", tmp_path / "write.go", rw.path, tmp_path / "a.npy", env=go_environment(tmp_path), timeout=500)
    want = np.vstack([RANDOM, RANDOM[:2]])
    want[0] = 0
    same(rw.load("whole"), want)
    for name in ("copied", "moved"):
        assert rw.array(name).read_bytes() == saved(RANDOM)
    assert sorted(os.listdir(rw.path)) == ["copied.npy", "moved.npy", "text.npy", "whole.npy", "x.npy"]


# --- several at once, and what is cut off -----------------------------------------------------------------------------


def test_two_shells_write_different_arrays(rw, tmp_path):
    for name, array in (("a", RANDOM), ("b", ZEROES)):
        np.save(tmp_path / f"{name}.npy", array)
    script = """set -e; cd "$1"; i=0
    while [ $i -lt 15 ]; do i=$((i+1)); cp "$2/$3.npy" .; cmp "$2/$3.npy" $3.npy; cat "$2/$3.npy" > .numpack/arrays/$3/append
    echo 0:10 > .numpack/arrays/$3/drop; mv $3.npy $3$i.npy; done"""
    shells = [subprocess.Popen(["sh", "-c", script, "sh", str(rw.path), str(tmp_path), name], stderr=subprocess.PIPE) for name in "ab"]
    for s in shells:
        err = s.communicate(timeout=4 * PATIENCE)[1]
        assert s.returncode == 0 and err == b"", err
    for i in range(1, 16):
        for name, array in (("a", RANDOM), ("b", ZEROES)):
            same(rw.load(f"{name}{i}"), np.vstack([array[10:], array]))


@pytest.mark.parametrize("how", ["over", "new"])
def test_a_copy_that_is_killed(mount, tmp_path, how):
    """Of an old array nothing is lost; a new name stays, for all to see, until its time is over, and never is an array."""
    name = "x" if how == "over" else "new"
    with mount(tmp_path / "s.npk", "create", "staging_ttl=2", ro=False) as m:
        np.save(m.array("x"), RANDOM)
        cp = subprocess.Popen(["cp", "/dev/stdin", str(m.array(name))], stdin=subprocess.PIPE)
        cp.stdin.write(saved(ZEROES)[:300_000])
        cp.stdin.flush()
        # More than a pipe holds: cp has read, and written, some of it.
        if how == "new":
            wait_for("cp has written", lambda: m.array("new").exists() and m.array("new").stat().st_size > 128)
            assert os.getxattr(m.array("new"), "user.numpack.state") == b"incomplete"
        cp.send_signal(signal.SIGKILL)
        assert cp.wait() == -signal.SIGKILL
        same(m.load("x"), RANDOM)
        assert (m.control() / "members").read_text() == "x\n"
        wait_for("it is told", lambda: any(e["path"] == f"{name}.npy" for e in m.last_errors()))
        wait_for("what it wrote is gone", lambda: os.listdir(m.path) == ["x.npy"])
        same(m.load("x"), RANDOM)
        run("cp", m.array("x"), m.array(name + "2"))
        same(m.load(name + "2"), RANDOM)
    assert sorted(p.name for p in (tmp_path / "s.npk").glob("data_*")) == sorted(f"data_{n}.npkd" for n in ("x", name + "2"))


def test_an_open_file_holds_up_an_unmount(mount, tmp_path):
    """umount says busy and nothing changes; a lazy one takes the name away, the file goes on, the daemon ends after it."""
    store = tmp_path / "s.npk"
    m = mount.start(store, "create", ro=False)
    np.save(m.array("x"), RANDOM)
    f = open(m.array("x"), "r+b", buffering=0)
    assert "busy" in refused("fusermount3", "-u", m.path)
    assert refused(BUILD / "npk", "umount", m.path).count("\n") == 1
    same(m.load("x"), RANDOM)
    run("fusermount3", "-u", "-z", m.path)
    assert not mounted(m.path)
    status, message = mount.refused(store, "lock_timeout=0", ro=False)
    assert status == 3 and f"pid {m.pid} " in message
    assert os.pread(f.fileno(), 1 << 20, 0) == saved(RANDOM)
    os.pwrite(f.fileno(), bytes(32), 128)
    f.close()
    with mount(store, ro=False) as n:       # waits for the lock
        want = RANDOM.copy()
        want[0] = 0
        same(n.load("x"), want)
    assert m.process.wait(PATIENCE) == 0
    mount.watchdog.say("disarm", m.pid)
