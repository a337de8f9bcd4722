"""npk pack and unpack against tar with zstd, and against the real NumPack: ratios of time and of size, and peak memory.

    bench_pack.py --build build/release --out build/bench [--mib 1024] [--rounds 3]

Each round runs all of them, one after the other, and brings what was written to disk within the measured time, as npk does by
itself. The median of the rounds' ratios counts. Goals: pack <= 1.05 of tar's time, unpack <= 1.0, npk's peak <= 64 MiB.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from npkwrite import Spec, write_store  # noqa: E402

# Runs its arguments, prints the peak memory in KiB: a process begins with the peak of the one that it was forked from.
PEAK = ("import resource, subprocess, sys\nsubprocess.run(sys.argv[1:], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")


def make_store(path, mib):
    """A quarter each: smooth floats, noise in 23 of 32 bits, small integers, bytes that cannot be compressed."""
    rng = np.random.default_rng(11)
    quarter = mib << 18
    write_store(path, {
        "walk": Spec(np.cumsum(rng.integers(-9, 10, quarter // 8)).astype("<i8").reshape(-1, 64)),
        "normal": Spec(rng.standard_normal(quarter // 4, dtype=np.float32).reshape(-1, 128)),
        "labels": Spec(rng.integers(0, 100, quarter // 4, dtype=np.int32)),
        "bytes": Spec(np.frombuffer(rng.bytes(quarter), np.uint8).reshape(-1, 256)),
    })


def run(argv, *written):
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-S", "-c", PEAK, *map(str, argv)], check=True, capture_output=True, text=True)
    for path in written:
        for file in [path] if path.is_file() else list(path.iterdir()):
            fd = os.open(file, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
    return time.perf_counter() - started, int(done.stdout)


def fresh(path):
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    return path


def one_round(npk, base):
    store, out = base / "x.npk", {}
    files = sorted(p.name for p in store.iterdir())
    tar, ours, real = base / "x.tar.zst", base / "x.npkg", base / "real.npkg"
    out["pack tar"] = run(["tar", "--use-compress-program=zstd -3 -T2", "-C", store, "-cf", fresh(tar), *files], tar)
    out["pack npk"] = run([npk, "pack", "-t", "2", store, fresh(ours)], ours)
    code = "import numpack, sys; numpack.{}(sys.argv[1], sys.argv[2])"
    out["pack NumPack"] = run([sys.executable, "-c", code.format("pack"), store, fresh(real)], real)
    a, b, c = base / "tar.out", base / "npk.out", base / "real.out"
    fresh(a).mkdir()
    out["unpack tar"] = run(["tar", "--use-compress-program=zstd -3 -T2", "-C", a, "-xf", tar], a)
    out["unpack npk"] = run([npk, "unpack", ours, fresh(b)], b)
    out["unpack NumPack"] = run([sys.executable, "-c", code.format("unpack"), real, fresh(c)], c)
    for name in set(files) - {"metadata.npkm"}:      # whose entries npk sorts
        subprocess.run(["cmp", a / name, b / name], check=True)
    return out, {"tar": tar.stat().st_size, "npk": ours.stat().st_size, "NumPack": real.stat().st_size}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build/release"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench"))
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as temp:
        base = pathlib.Path(temp)
        make_store(base / "x.npk", args.mib)
        rounds = [one_round(args.build.resolve() / "npk", base) for _ in range(args.rounds)]
    result = {"mib": args.mib, "rounds": args.rounds, "lines": []}
    print(f"{'':8}{'against':10}{'time':>8}{'size':>8}{'peak MiB':>10}{'theirs':>8}")
    for verb in ("pack", "unpack"):
        for other in ("tar", "NumPack"):
            times = [r[f"{verb} npk"][0] / r[f"{verb} {other}"][0] for r, _ in rounds]
            line = {"verb": verb, "against": other, "time_ratio": round(statistics.median(times), 3),
                    "size_ratio": round(rounds[0][1]["npk"] / rounds[0][1][other], 4),
                    "peak_mib": round(max(r[f"{verb} npk"][1] for r, _ in rounds) / 1024, 1),
                    "their_peak_mib": round(max(r[f"{verb} {other}"][1] for r, _ in rounds) / 1024, 1)}
            result["lines"].append(line)
            print(f"{verb:8}{other:10}{line['time_ratio']:8.2f}{line['size_ratio']:8.3f}{line['peak_mib']:10.1f}"
                  f"{line['their_peak_mib']:8.1f}")
    (args.out / "pack.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
