"""Ends daemons that a test left behind or that stopped answering. Runs beside pytest, which tells it on stdin:

    arm PID SECONDS MOUNTPOINT        disarm PID

A test that waits in the kernel for a daemon cannot run its own time-out; this process can. When stdin closes (pytest ended,
or died) everything that is still armed goes at once.
"""

import os
import select
import signal
import subprocess
import sys
import time


def fuse_connection(mountpoint):
    """The control directory of the mount, to abort it when the daemon itself hangs in the kernel; None without rights."""
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            fields = line.split()
            if fields[4] == mountpoint.encode("unicode_escape"):
                abort = f"/sys/fs/fuse/connections/{fields[2].split(b':')[1].decode()}/abort"
                return abort if os.access(abort, os.W_OK) else None
    return None


def end(pid, mountpoint, why):
    print(f"watchdog: {why}: daemon {pid} on {mountpoint}", file=sys.stderr, flush=True)
    abort = fuse_connection(mountpoint)
    try:
        os.kill(pid, signal.SIGABRT)
        time.sleep(1)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if abort:
        with open(abort, "w") as f:
            f.write("1")
    subprocess.run(["fusermount3", "-u", "-z", "-q", mountpoint], check=False)


def main():
    armed = {}
    buffer = b""
    while True:
        soonest = min((when for when, _ in armed.values()), default=None)
        wait = None if soonest is None else max(0.0, soonest - time.monotonic())
        if select.select([0], [], [], wait)[0]:
            got = os.read(0, 65536)
            if not got:
                break
            buffer += got
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                verb, pid, *rest = line.decode().split(" ", 3)
                if verb == "arm":
                    armed[int(pid)] = (time.monotonic() + float(rest[0]), rest[1])
                else:
                    armed.pop(int(pid), None)
        for pid, (when, mountpoint) in list(armed.items()):
            if when <= time.monotonic():
                del armed[pid]
                end(pid, mountpoint, "time is up")
    for pid, (_, mountpoint) in armed.items():
        end(pid, mountpoint, "left behind")


main()
