"""npk as a script calls it."""

import subprocess

from harness import PATIENCE, program

OK, USAGE, FAILED, BUSY = 0, 1, 2, 3


def run(*args, **kw):
    """Nothing on standard input, unless `stdin` or `input` says so."""
    if "stdin" not in kw:
        kw.setdefault("input", b"")
    return subprocess.run([str(program("npk")), *map(str, args)], capture_output=True, timeout=PATIENCE, **kw)


def good(*args, **kw):
    """The standard output of a call that must succeed and complain of nothing."""
    done = run(*args, **kw)
    assert (done.returncode, done.stderr) == (OK, b""), (args, done)
    return done.stdout


def refused(status, *args, **kw):
    """The one line that a call complains with; nothing else may be printed."""
    done = run(*args, **kw)
    assert (done.returncode, done.stdout) == (status, b""), (args, done)
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"npk {args[0]}: "), (args, done)
    return lines[0]
