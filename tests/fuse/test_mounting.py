"""From the command to a mount and to its end: exit statuses, causes, settings, the background, signals, other users."""

import contextlib
import os
import pathlib
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest

from harness import PATIENCE, ROOT, SANITIZED, clean_environment, copy_golden, mounted, program, require_fuse, wait_for

SETTINGS = ["ro", "create", "drop_if_exists", "sync", "commit", "lock_timeout", "staging_ttl", "show_control", "allow_other", "watch", "attr_ttl", "threads", "ctl_max", "header", "read_ahead_kb", "uid",
            "gid", "umask", "autocompact", "sandbox", "cache_dir", "log_level", "log_file"]
LIFE = 150


def run(*argv, home="/nonexistent", env=None, **kw):
    return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
                          env={**clean_environment(home), **(env or {})}, **kw)


def numpackfs(*argv, **kw):
    try:
        return run(program("numpackfs"), *argv, **kw)
    except subprocess.TimeoutExpired:    # it mounted what it should refuse
        detach(argv)
        raise


def alive(pid):
    """A zombie has ended; in a container nobody may collect it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def daemons(mountpoint):
    """The processes that were told to mount there."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.fsencode(mountpoint) in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in found if alive(pid)]


def detach(paths):
    for path in paths:
        if mounted(path):
            run("fusermount3", "-u", "-z", "-q", path)


class Background:
    """A mount without -f. `result` is what the command printed and returned, `pid` the daemon's."""

    def __init__(self, watchdog, at, *argv, **kw):
        require_fuse()
        self.at = at
        self.result = numpackfs(*argv, at, **kw)
        if self.result.returncode != 0:
            detach([at])
        found = daemons(at)
        self.pid = found[0] if self.result.returncode == 0 and found else None
        if self.pid:
            watchdog.say("arm", self.pid, LIFE, at)

    def config(self):
        return settings((self.at / ".numpack" / "config").read_text())

    def ended(self):
        wait_for("the daemon has ended", lambda: not alive(self.pid))


@pytest.fixture
def background(tmp_path, watchdog):
    """background("-o", "ro", store): mounts on tmp_path/mnt."""
    started = []

    def start(*argv, **kw):
        at = tmp_path / f"mnt{len(started)}"
        at.mkdir()
        b = Background(watchdog, at, *argv, **kw)
        assert b.result.returncode == 0, b.result.stderr
        assert b.pid, "no daemon is there"
        started.append(b)
        return b

    yield start
    for b in started:
        if mounted(b.at):
            done = run("fusermount3", "-u", b.at)
            assert done.returncode == 0, done.stderr
        b.ended()
        watchdog.say("disarm", b.pid)
        assert not mounted(b.at)


@pytest.fixture
def store(golden_copy):
    return golden_copy("digits.npk")


def settings(text):
    """.numpack/config as {name: (value, origin)}."""
    out = {}
    for line in text.splitlines():
        m = re.fullmatch(r"(\w+) = (.*)  # (.*)", line)
        assert m, f"not a setting: {line!r}"
        out[m[1]] = (m[2], m[3])
    return out


# --- exit statuses ----------------------------------------------------------------------------------------------------


def refused(result, status, pattern):
    """One line, that status, nothing on stdout."""
    if result.returncode == 0:
        detach(result.args)
    assert result.returncode == status, result
    assert re.fullmatch(f"numpackfs: [^\n]*{pattern}[^\n]*\n", result.stderr), result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("argv, pattern", [
    ([], "STORE and MOUNTPOINT must be given"),
    (["{store}"], "STORE and MOUNTPOINT must be given"),
    (["{store}", "{mnt}", "{mnt}"], "more than STORE and MOUNTPOINT"),
    (["-x", "{store}", "{mnt}"], "unknown option '-x'"),
    (["--bakground", "{store}", "{mnt}"], "unknown option '--bakground'"),
    (["{store}", "{mnt}", "-o"], "-o needs an argument"),
])
def test_wrong_arguments_are_usage(store, tmp_path, argv, pattern):
    (tmp_path / "mnt").mkdir()
    refused(numpackfs(*[a.format(store=store, mnt=tmp_path / "mnt") for a in argv]), 1, pattern)


@pytest.mark.parametrize("option, pattern", [
    ("watsh=off", "unknown option 'watsh': did you mean 'watch'?"),
    ("show-control", "unknown option 'show-control': did you mean 'show_control'?"),
    ("thread=3", "unknown option 'thread': did you mean 'threads'?"),
    ("colour", "unknown option 'colour': see numpackfs --help"),
    ("watch", "watch needs a value: inotify"),
    ("watch=poll:9", "watch=poll:9: must be inotify, poll:<ms>"),
    ("watch=poll:", "watch=poll:: must be"),
    ("watch=poll:5s", "watch=poll:5s: must be"),
    ("threads=0", "threads=0: must be a number from 1 to 64"),
    ("threads=65", "threads=65: must be"),
    ("threads=", "threads=: must be"),
    ("threads=-1", "threads=-1: must be"),
    ("threads=18446744073709551617", "must be a number"),
    ("ctl_max=4095", "ctl_max=4095: must be a size"),
    ("ctl_max=2G", "ctl_max=2G: must be a size"),
    ("ctl_max=18014398509481985k", "must be a size"),
    ("ctl_max=1T", "ctl_max=1T: must be a size"),
    ("attr_ttl=-1", "attr_ttl=-1: must be seconds"),
    ("attr_ttl=nan", "attr_ttl=nan: must be seconds"),
    ("attr_ttl=1e3", "attr_ttl=1e3: must be seconds"),
    ("header=512", "header=512: must be numpy or 4096"),
    ("umask=0888", "umask=0888: must be octal"),
    ("umask=1777", "umask=1777: must be octal"),
    ("uid=no such user", "uid=no such user: must be a user's name"),
    ("gid=4294967295", "gid=4294967295: must be a group's name"),
    ("log_level=loud", "log_level=loud: must be error"),
    ("log_file=x.log", "log_file=x.log: must be an absolute path"),
    ("show_control=maybe", "show_control=maybe: must be on or off"),
    ("sync=never", "sync=never: must be always, commit or fsync"),
    ("commit=0", "commit=0: must be seconds from 1"),
    ("remount,ro", "unmount it and mount it anew"),
    ("autocompact=101", "autocompact=101: must be percent"),
])
def test_wrong_options_are_usage(store, tmp_path, option, pattern):
    (tmp_path / "mnt").mkdir()
    refused(numpackfs("-o", option, store, tmp_path / "mnt"), 1, re.escape(pattern))


@pytest.mark.parametrize("flags", [[], ["-f"]])
def test_store_that_cannot_be_opened_is_2(tmp_path, flags):
    (tmp_path / "mnt").mkdir()
    (tmp_path / "file").write_text("x")
    refused(numpackfs(*flags, tmp_path / "no.npk", tmp_path / "mnt"), 2, re.escape(f"{tmp_path}/no.npk"))
    refused(numpackfs(*flags, tmp_path / "file", tmp_path / "mnt"), 2, re.escape(f"{tmp_path}/file"))
    assert not mounted(tmp_path / "mnt")


def test_damaged_store_is_2_with_the_place(tmp_path):
    bad = copy_golden("digits.npk", tmp_path)
    (tmp_path / "mnt").mkdir()
    (bad / "metadata.npkm").write_bytes(b"XXXX" + (bad / "metadata.npkm").read_bytes()[4:])
    refused(numpackfs(bad, tmp_path / "mnt"), 2, r"metadata\.npkm.*byte 0")


@pytest.mark.parametrize("flags", [[], ["-f"]])
def test_mountpoint_that_will_not_do_is_4(store, tmp_path, flags):
    inside = store / "inside"
    inside.mkdir()
    refused(numpackfs(*flags, store, tmp_path / "none"), 4, "none: No such file or directory")
    refused(numpackfs(*flags, store, store / "metadata.npkm"), 4, "not a directory")
    refused(numpackfs(*flags, store, inside), 4, "lies in the store")
    refused(numpackfs(*flags, store, store), 4, "lies in the store")
    refused(numpackfs(*flags, store, tmp_path), 4, "would hide the store")
    os.symlink(inside, tmp_path / "link")
    refused(numpackfs(*flags, store, tmp_path / "link"), 4, "lies in the store")


def test_second_mount_in_one_place_is_4(background, store):
    b = background(store)
    refused(numpackfs(store, b.at), 4, f"{store} is already mounted there; unmount it with 'fusermount3 -u {b.at}'")
    assert b.config()["ro"] == ("off", "built-in")


def test_relative_paths_and_odd_bytes_in_them(background, tmp_path, store):
    odd = tmp_path / "a, b\\c\n#d"
    odd.mkdir()
    store.rename(odd / "s.npk")
    b = background("s.npk", cwd=odd)
    assert (b.at / ".numpack" / "version").exists()


# --- a daemon that died -----------------------------------------------------------------------------------------------


def test_dead_mount_is_explained_and_the_advice_works(background, store, tmp_path):
    b = background(store)
    os.kill(b.pid, signal.SIGKILL)
    b.ended()
    result = numpackfs(store, b.at)
    refused(result, 4, "dead mount.*fusermount3 -u")
    advice = re.search(r"'(fusermount3 -u [^']*)'", result.stderr)[1]
    assert run(*shlex.split(advice)).returncode == 0
    again = background(store)
    assert again.config()["ro"][0] == "off"


# --- settings ---------------------------------------------------------------------------------------------------------


def test_every_setting_shows_with_its_origin(background, store):
    config = background(store).config()
    assert list(config) == SETTINGS
    assert {origin for _, origin in config.values()} == {"built-in"}


def test_later_sources_win(background, store, tmp_path):
    conf = tmp_path / "home" / ".config" / "numpackfs.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("threads = 2\n[mount]\n# a comment\nattr_ttl = 7  # seconds\n  ctl_max = 1M ; bytes\nshow_control = yes\n")
    b = background("-o", "ro,attr_ttl=9", "-o", "noshow_control", store, home=tmp_path / "home",
                   env={"NUMPACKFS_CTL_MAX": "2M", "NUMPACKFS_ATTR_TTL": "8", "NUMPACKFS_LOG_LEVEL": "warn"})
    config = b.config()
    assert config["threads"] == ("2", f"{conf}:1")
    assert config["ctl_max"] == ("2M", "NUMPACKFS_CTL_MAX")
    assert config["log_level"] == ("warn", "NUMPACKFS_LOG_LEVEL")
    assert config["attr_ttl"] == ("9", "-o")
    assert config["show_control"] == ("off", "-o")
    assert config["ro"] == ("on", "-o")
    assert config["watch"] == ("inotify", "built-in")


def test_sections_of_stores(background, store, tmp_path):
    """The store's own section wins wherever it stands, however long its path is; those of others do nothing."""
    long = tmp_path / ("d" * 120)
    long.mkdir()
    shutil.move(store, long / "s.npk")
    conf = tmp_path / "xdg" / "numpackfs.conf"
    conf.parent.mkdir()
    conf.write_text(f"[{long}/s.npk]\nthreads = 3\n[{long}/t.npk]\nheader = 4096\n[mount]\nthreads = 1\numask = 027\n")
    config = background(long / "s.npk", env={"XDG_CONFIG_HOME": str(conf.parent)}).config()
    assert config["threads"] == ("3", f"{conf}:2")
    assert config["umask"] == ("0027", f"{conf}:7")
    assert config["header"] == ("numpy", "built-in")


def test_config_is_a_valid_file(background, store, tmp_path):
    options = (f"watch=poll:50,attr_ttl=0.25,threads=2,ctl_max=12345,header=4096,uid=0,gid=0,umask=022,log_level=debug,"
               f"log_file={tmp_path}/log,show_control,ro")
    first = background("-o", options, store)
    conf = tmp_path / "xdg" / "numpackfs.conf"
    conf.parent.mkdir()
    conf.write_text((first.at / ".numpack" / "config").read_text())
    second = background(store, env={"XDG_CONFIG_HOME": str(conf.parent)})
    assert {k: v for k, (v, _) in second.config().items()} == {k: v for k, (v, _) in first.config().items()}
    assert second.config()["watch"][1] == f"{conf}:10"


@pytest.mark.parametrize("text, line, pattern", [
    ("\nthreads = 99\n", 2, "threads=99: must be a number from 1 to 64"),
    ("[mount]\n\nwatsh = off\n", 3, "unknown option 'watsh': did you mean 'watch'"),
    ("[mount]\nshow_control\n", 2, "neither a .section. nor name = value"),
    ("[mounts]\nro = on\n", 2, "unknown section"),
    ("[mount]\nro = maybe\n", 2, "ro=maybe: must be on or off"),
    ("log_file = /" + "x" * 300 + "\n", 1, "the line is too long"),
], ids=["value", "name", "syntax", "section", "rw", "long"])
def test_bad_files_are_told_with_line_and_value(store, tmp_path, text, line, pattern):
    (tmp_path / "mnt").mkdir()
    conf = tmp_path / "numpackfs.conf"
    conf.write_text(text)
    result = numpackfs(store, tmp_path / "mnt", env={"XDG_CONFIG_HOME": str(tmp_path)})
    refused(result, 1, f"{re.escape(str(conf))}:{line}: {pattern}")


def test_bad_variables_are_told(store, tmp_path):
    (tmp_path / "mnt").mkdir()
    refused(numpackfs(store, tmp_path / "mnt", env={"NUMPACKFS_THREADS": "x"}), 1, "NUMPACKFS_THREADS: threads=x: must be")
    refused(numpackfs(store, tmp_path / "mnt", env={"NUMPACKFS_WACTH": "x"}), 1, "NUMPACKFS_WACTH: .*did you mean 'watch'")


def test_options_of_mount_8_are_passed_over(background, store):
    b = background(store, "-o", "defaults,auto,noauto,user,nofail,_netdev,x-systemd.automount,x-foo=bar,comment=a,exec,noexec,"
                   "suid,nosuid,dev,nodev,atime,noatime,relatime,async,sync,ro")
    assert b.result.stderr == ""


def test_rw_is_what_mount_says_unless_it_is_told_ro(background, store):
    """mount(8) passes rw unless it is told ro."""
    b = background("-o", "rw", store)
    assert b.result.stderr == "" and b.config()["ro"] == ("off", "-o")
    open(b.at / "images.npy", "r+b").close()


# --- the background and its end ---------------------------------------------------------------------------------------


def test_background_returns_when_the_mount_answers(background, store):
    b = background(store)
    assert (b.result.stdout, b.result.stderr) == ("", "")
    assert mounted(b.at)
    assert os.getsid(b.pid) == b.pid
    assert os.readlink(f"/proc/{b.pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{b.pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    limits = pathlib.Path(f"/proc/{b.pid}/limits").read_text()
    assert re.search(r"Max core file size\s+0\s+0\s", limits)


def test_daemon_survives_its_terminal(tmp_path, store, watchdog):
    require_fuse()
    at = tmp_path / "mnt"
    at.mkdir()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(program("numpackfs"), ["numpackfs", str(store), str(at)], clean_environment(tmp_path))
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.close(terminal)
        daemon = daemons(at)[0]
        watchdog.say("arm", daemon, LIFE, at)
        assert "off" == settings((at / ".numpack" / "config").read_text())["ro"][0]
    finally:
        detach([at])
    wait_for("the daemon has ended", lambda: not alive(daemon))
    watchdog.say("disarm", daemon)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_unmount(background, mount, store, sig):
    b = background(store)
    os.kill(b.pid, sig)
    b.ended()
    assert not mounted(b.at)
    m = mount.start(store)
    m.process.send_signal(sig)
    wait_for("the daemon has ended", lambda: m.process.poll() is not None)
    mount.stop(m)


def test_hup_reopens_the_log_and_usr1_logs_statistics(background, store, tmp_path):
    log = tmp_path / "npk.log"
    b = background("-o", f"log_file={log}", store)
    before = len(log.read_text().splitlines())
    os.kill(b.pid, signal.SIGUSR1)
    wait_for("statistics are in the log", lambda: len(log.read_text().splitlines()) > before)
    log.rename(tmp_path / "npk.log.1")
    os.kill(b.pid, signal.SIGHUP)
    wait_for("the log is opened anew", lambda: log.exists() and "SIGHUP" in log.read_text())
    assert "SIGHUP" in (b.at / ".numpack" / "log").read_text()
    assert log.stat().st_mode & 0o137 == 0


def test_log_keeps_the_last_256_lines(background, store, tmp_path):
    log = tmp_path / "npk.log"
    b = background("-o", f"log_file={log}", store)
    for n in range(300):
        os.kill(b.pid, signal.SIGHUP)
        wait_for("the signal is in the log", lambda: log.read_text().count("SIGHUP") > n)
    lines = (b.at / ".numpack" / "log").read_text().splitlines()
    assert len(lines) == 256
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warn |info |debug|trace) ", line) for line in lines)


def test_debug_logs_requests_to_stderr(mount, store):
    with mount(store, foreground="-d") as m:
        (m.path / "no such file").exists()
        wait_for("the request is in the log", lambda: "LOOKUP" in m.log_text())


@pytest.mark.parametrize("name", ["path", "abstract"])
def test_systemd_is_told(mount, store, tmp_path, name):
    """READY=1 comes when the mount answers, STOPPING=1 when it ends."""
    address = str(tmp_path / "notify") if name == "path" else f"@npk-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind("\0" + address[1:] if name == "abstract" else address)
        s.settimeout(30)
        m = mount.start(store, env={"NOTIFY_SOCKET": address})
        assert s.recv(4096) == b"READY=1"
        assert mounted(m.path)
        mount.stop(m)
        assert s.recv(4096) == b"STOPPING=1"


# --- as root, in a namespace of its own -------------------------------------------------------------------------------


@pytest.fixture
def namespace(store):
    """namespace(script, NAME=value): a shell with private mounts and processes, all of which end with it. $S is a store,
    $M and $T an empty mountpoint and a directory, $B holds the programs; everybody may read them."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a mount namespace")
    require_fuse()
    with tempfile.TemporaryDirectory(prefix="npk-test.", dir="/tmp") as base:    # pytest's own is closed to other users
        base = pathlib.Path(base)
        (base / "b").mkdir()
        (base / "m").mkdir()
        shutil.copy2(program("numpackfs"), base / "b")
        shutil.copytree(store, base / "s.npk")
        subprocess.run(["chmod", "-R", "a+rX", str(base)], check=True)

        def script(text, **env):
            result = run("unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", "set -u\n" + text, cwd=base,
                         env={"S": str(base / "s.npk"), "M": str(base / "m"), "T": str(base), "B": str(base / "b"), **env})
            if "unshare failed" in result.stderr or "cannot change root filesystem propagation" in result.stderr:
                pytest.skip(f"no namespaces here: {result.stderr.strip()}")
            return result

        yield script


def test_system_file_comes_before_the_users(namespace):
    result = namespace("""
        mkdir $T/etc $T/xdg && cp /etc/passwd /etc/group $T/etc && mount --bind $T/etc /etc || exit 99
        printf '[mount]\\nthreads = 2\\nattr_ttl = 5\\n' > /etc/numpackfs.conf
        printf 'attr_ttl = 6\\n' > $T/xdg/numpackfs.conf
        XDG_CONFIG_HOME=$T/xdg $B/numpackfs $S $M && cat $M/.numpack/config && fusermount3 -u $M""")
    assert result.returncode == 0, result.stderr
    config = settings(result.stdout)
    assert config["threads"] == ("2", "/etc/numpackfs.conf:2")
    assert config["attr_ttl"][0] == "6" and config["attr_ttl"][1].endswith("/xdg/numpackfs.conf:1")


def test_through_mount_8(namespace):
    """As in fstab, with the options that people write there, and with a cause when it fails."""
    result = namespace("""
        mount --bind $B /usr/local/bin || exit 99
        echo "$S $M fuse.numpackfs rw,nofail,x-systemd.automount,allow_other,_netdev 0 0" > $T/fstab
        mount -T $T/fstab $M && cat $M/.numpack/config && grep " $M " /proc/mounts && umount $M || exit 1
        mount -t fuse.numpackfs -o ro,watch=poll:500 $S $M && cat $M/.numpack/config && umount $M || exit 2
        mount -t fuse.numpackfs -o ro,watsh=off $S $M; echo "status $?"
        mount -t fuse.numpackfs -o ro $T/none $M; echo "status $?" """)
    assert result.returncode == 0, result.stderr
    assert "watch = poll:500  # -o\n" in result.stdout
    assert "allow_other = on  # -o\n" in result.stdout
    assert re.search(r"/s\.npk \S+/m fuse\.numpackfs r[ow],nosuid,nodev\S*,allow_other", result.stdout)
    assert result.stdout.endswith("status 1\nstatus 2\n")
    assert "did you mean 'watch'?" in result.stderr


def test_as_mount_numpackfs(namespace):
    """The arguments that mount(8) gives its helpers: flags behind the operands; -s is sloppy, -f does nothing."""
    result = namespace("""
        ln -s numpackfs $B/mount.numpackfs; H=$B/mount.numpackfs
        $H $S $M -n -v -o rw,user,_netdev -t numpackfs.x && cat $M/.numpack/version && umount $M || exit 1
        $H $S $M -s -o ro,colour=red && umount $M || exit 2
        $H $S $M -o ro,colour=red; test $? = 1 || exit 3
        $H $S $M -f -o ro && ! grep " $M " /proc/mounts""")
    assert result.returncode == 0, result


AS_NOBODY = """
    chown 65534:65534 $M
    if [ $(stat -c %a /dev/fuse) != 666 ]; then
        mknod -m 666 $T/fuse c 10 229 && mount --bind $T/fuse /dev/fuse && : 3<>/dev/fuse || exit 99
    fi
    u() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
"""


def test_as_a_normal_user(namespace):
    """A user who is not root mounts, reads, unmounts, and ends the daemon by SIGTERM; others stay out."""
    result = namespace(AS_NOBODY + """
        u $B/numpackfs $S $M && u cat $M/.numpack/config > $T/config && u fusermount3 -u $M || exit 1
        u $B/numpackfs $S $M || exit 2
        cat $M/.numpack/version 2> $T/others && exit 3
        u sh -c 'kill -TERM $(pgrep -u 65534 -n -x numpackfs)'
        while grep -q " $M " /proc/mounts; do sleep 0.05; done""", HOME="/root")
    if result.returncode == 99:
        pytest.skip(f"no usable /dev/fuse for others: {result.stderr}")
    assert result.returncode == 0, result


def test_what_a_normal_user_may_not(namespace):
    result = namespace(AS_NOBODY + """
        grep -q '^user_allow_other' /etc/fuse.conf 2>/dev/null && mount --bind /dev/null /etc/fuse.conf
        u $B/numpackfs -o allow_other $S $M; echo "status $?"
        mkdir -m 755 $T/roots; u $B/numpackfs $S $T/roots; echo "status $?"
        ! grep fuse.numpackfs /proc/mounts | grep $T""")
    if result.returncode == 99:
        pytest.skip(f"no usable /dev/fuse for others: {result.stderr}")
    assert result.returncode == 0 and result.stdout == "status 5\nstatus 4\n", result
    allow_other, roots = result.stderr.splitlines()
    assert "user_allow_other" in allow_other
    assert "may write" in roots


def test_without_fuse_is_5(namespace):
    result = namespace("""
        mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 || exit 99
        $B/numpackfs $S $M; echo "status $?"
        mknod -m 666 /dev/fuse c 10 229; setpriv --bounding-set=-sys_admin $B/numpackfs $S $M; echo "status $?" """)
    assert result.stdout == "status 5\nstatus 5\n", result
    missing, forbidden = result.stderr.splitlines()
    assert "/dev/fuse is missing" in missing
    assert "SYS_ADMIN" in forbidden


# --- what is written about it -----------------------------------------------------------------------------------------


def test_version_names_the_parts():
    result = numpackfs("--version")
    assert result.returncode == 0
    assert re.match(r"numpackfs \d+\.\d+\.\d+\nlibfuse 3\.\d+", result.stdout)
    assert re.search(r"FUSE kernel interface version 7\.\d+", result.stdout)
    assert "codecs: " in result.stdout


def test_help_man_pages_and_completions_agree():
    text = numpackfs("--help").stdout
    assert numpackfs("-h").stdout == text
    flags = re.findall(r"^    (-\w), (--\w+)", text, re.M)
    options = re.findall(r"^    ([a-z_]+)(?:=\S+)?  ", text, re.M)
    assert len(flags) == 5 and options == SETTINGS
    version = numpackfs("-V").stdout.split("\n")[0]
    assert all(f'"{version}"' in (ROOT / "fs" / page).read_text() for page in ("numpackfs.1", "numpackfs.conf.5"))
    page = (ROOT / "fs" / "numpackfs.1").read_text().replace("\\", "")
    for short, long in flags:
        assert re.search(rf'^\.BR {short} ", " {long}\b', page, re.M), long
    assert re.findall(r"^\.TP\n\.BI? ([a-z_]+)=?(?: |$)", page, re.M) == options
    table = (ROOT / "fs" / "numpackfs.conf.5").read_text()
    assert re.findall(r"^([a-z_]+)\|", table, re.M) == options
    for name in ("numpackfs.bash", "_numpackfs", "numpackfs.fish"):
        completion = (ROOT / "contrib" / "completions" / name).read_text()
        assert not [o for o in options if not re.search(rf"\b{o}\b", completion)], name


def test_built_in_values_are_those_of_the_man_page(background, store):
    table = (ROOT / "fs" / "numpackfs.conf.5").read_text()
    documented = dict(re.findall(r"^([a-z_]+)\|\\?f?B?(\w+)", table, re.M))
    documented["sandbox"] = "off" if SANITIZED else documented["sandbox"]   # a sanitizer's runtime does more than the sandbox allows
    assert {k: v for k, (v, _) in background(store).config().items()} == documented
