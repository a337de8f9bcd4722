"""Timing of peers against each other: interleaved, in rounds, and the rows of the table that comes of it."""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

SAMPLE = 0.004      # seconds that one sample of a peer lasts at least
TRIES = 3
SLOW = 1.0          # a call that takes longer is made once, and the row says so


def parse(doc, groups, quick):
    """The words of a benchmark whose table has groups."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", required=True, type=pathlib.Path)
    p.add_argument("--out", required=True, type=pathlib.Path)
    p.add_argument("--quick", action="store_true", help=quick)
    p.add_argument("--only", choices=groups, action="append", help="this group; may be repeated")
    return p.parse_args()


@contextlib.contextmanager
def workplace(out, prefix):
    """A directory below `out`, which is made, for as long as the run lasts."""
    out.mkdir(parents=True, exist_ok=True)
    base = out.resolve() / f"{prefix}-{os.getpid()}"
    base.mkdir()
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def run_groups(bench, groups, only):
    """The methods of `bench` with these names, `only` some if that is not None, and its end."""
    try:
        for group in groups:
            if only is None or group in only:
                getattr(bench, group)()
    finally:
        bench.close()


class Failed(Exception):
    pass


class Upstream:
    """A process with the real NumPack. peer() makes something that measure() can time."""

    def __init__(self, script, *words):
        self.process = subprocess.Popen([sys.executable, str(script), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)

    def call(self, verb, repeat, *args):
        try:
            self.process.stdin.write(json.dumps([verb, repeat, args]) + "\n")
            self.process.stdin.flush()
            reply = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise Failed("the process of the real NumPack died") from None
        if "error" in reply:
            raise Failed(reply["error"])
        return reply["seconds"]

    def peer(self, verb, *args):
        return lambda repeat: self.call(verb, repeat, *args)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def local(call):
    """A peer of this process."""
    def timed(repeat):
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        return time.perf_counter() - start
    return timed


def measure(peers, rounds, prepare=None, sample=SAMPLE):
    """Seconds per call of each peer, a list with one value a round: the least of TRIES samples, for somebody else may have
    had the processor. `peers` maps names to functions that repeat a call
    and return the seconds; `prepare` maps some to what must happen, untimed, before every call. A peer that fails is
    left out."""
    prepare = prepare or {}
    repeat, once, out = {}, set(), {}
    for name, peer in list(peers.items()):
        try:
            if name in prepare:
                prepare[name]()
                peer(1)
                repeat[name] = 1
            else:
                first = peer(1)
                if first > SLOW:
                    once.add(name)
                    out[name] = [first]
                    continue
                repeat[name] = max(1, int(sample / max(min(first, peer(1)), 1e-9)))
        except Failed as e:
            print(f"  {name}: {e}", flush=True)
    order = list(repeat)
    for r in range(rounds):
        for name in order[r % len(order):] + order[:r % len(order)] if order else []:
            if name in prepare:
                prepare[name]()
            tries = 1 if name in prepare or repeat[name] == 1 else TRIES
            out.setdefault(name, []).append(min(peers[name](repeat[name]) for _ in range(tries)) / repeat[name])
    return out


@dataclasses.dataclass
class Row:
    group: str
    what: str           # the operation and its sizes
    who: str            # library, mount, upstream
    peer: str           # what it is compared with
    ours: float         # seconds; or the value of `unit`
    theirs: float
    ratio: float        # the median over the rounds
    low: float
    high: float
    goal: float = None
    speed: bool = False     # the ratio is one of speeds, more is better; else of times, less is better
    unit: str = "s"
    note: str = ""

    def met(self):
        if self.goal is None:
            return ""
        return "met" if (self.ratio >= self.goal if self.speed else self.ratio <= self.goal) else "short"


def pretty(value, unit):
    if value is None:
        return ""
    if unit == "s":
        for scale, name in ((1e-9, "ns"), (1e-6, "us"), (1e-3, "ms")):
            if value <= 999.5 * scale:
                return f"{value / scale:.3g} {name}"
        return f"{value:.3g} s"
    return f"{value:.3g} {unit}"


def times(ratio):
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


class Table:
    def __init__(self):
        self.rows, self.skipped = [], []

    def heading(self, text):
        print(f"\n{text}\n{'':2}{'':46}{'ours':>10} {'peer':>10}  {'ratio':>6} {'min..max':>13}  goal", flush=True)

    def add(self, row):
        self.rows.append(row)
        goal = "" if row.goal is None else f"{'>=' if row.speed else '<='} {times(row.goal)} {row.met()}"
        spread = "" if row.low is None else f"{times(row.low)}..{times(row.high)}"
        name = f"{row.what}: {row.who} / {row.peer}" if row.peer else f"{row.what}: {row.who}"
        if len(name) > 50:
            print(f"  {name}\n{'':46}", end="  ")
        else:
            print(f"  {name:46}", end="")
        ratio = times(row.ratio) if row.peer else ""
        print(f"{pretty(row.ours, row.unit):>10} {pretty(row.theirs, row.unit):>10}  {ratio:>6} {spread:>13}  {goal}"
              f"{'  ' + row.note if row.note else ''}", flush=True)

    def pair(self, group, what, found, who, peer, goal=None, speed=False, note=""):
        """The row of peer `who` against peer `peer`, if both were measured."""
        if who not in found or peer not in found:
            return
        a, b = found[who], found[peer]
        n = min(len(a), len(b))
        ratios = [(y / x if speed else x / y) for x, y in zip(a[:n], b[:n])]
        if n == 1 and max(a + b) > SLOW:
            note = (note + "; " if note else "") + "one run"
        self.add(Row(group, what, who, peer, statistics.median(a), statistics.median(b), statistics.median(ratios),
                     min(ratios), max(ratios), goal, speed, note=note))

    def value(self, group, what, who, value, goal=None, low=None, high=None, unit="s", note=""):
        """A row without a peer: an absolute figure, and its goal in the same unit."""
        row = Row(group, what, who, "", value, None, value, low, high, None, unit=unit, note=note)
        if goal is not None:
            row.goal = goal
            row.note = f"goal {pretty(goal, unit)}" + ("; " + note if note else "")
        self.rows.append(row)
        spread = "" if low is None else f"{pretty(low, unit)}..{pretty(high, unit)}"
        print(f"  {what + ': ' + who:46}{pretty(value, unit):>10} {'':>10}  {'':>6} {'':>13}  "
              f"{'<= ' + pretty(goal, unit) + ' ' + row.met() if goal is not None else ''}"
              f"{'  (' + spread + ')' if spread else ''}{'  ' + note if note else ''}", flush=True)

    def skip(self, what, why):
        self.skipped.append({"what": what, "why": why})
        print(f"  {what}: skipped: {why}", flush=True)
