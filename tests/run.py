"""Runs every test of one build and ends with the line "N passed, N failed, N skipped".

    run.py --build build/release [-k EXPRESSION] [PATH...]

First the C programs under BUILD/tests/, then pytest over tests/. With -k or paths only pytest runs, on these. The exit
status is 0 when something passed and nothing failed. BUILD/results.json has every result.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
SECONDS = {"asan": 480, "tsan": 480}     # for one test; 120 in other builds
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Run:
    def __init__(self, build):
        self.build = build
        self.mode = build.name
        self.seconds = SECONDS.get(self.mode, 120)
        # Two runs of one build do not disturb each other; what a failed run leaves is there to be looked at.
        for old in build.glob("run-*"):
            if not pathlib.Path("/proc", old.name[4:]).exists():
                shutil.rmtree(old)
        self.work = build / f"run-{os.getpid()}"
        self.reports = self.work / "reports"
        self.reports.mkdir(parents=True)
        self.results = []    # of {suite, name, outcome, reason}
        # The runtime of gcc 12's ThreadSanitizer cannot live with the address randomisation of newer kernels.
        self.prefix = ["setarch", platform.machine(), "-R"] if self.mode == "tsan" else []
        self.env = self.environment()

    def environment(self):
        log = self.reports / "report"
        env = {
            **os.environ,
            "NPK_BUILD": str(self.build),
            "NPK_REPORTS": str(self.reports),
            "PATH": f"{self.build}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "ASAN_OPTIONS": f"log_path={log}:exitcode=99:detect_leaks=1:detect_stack_use_after_return=1",
            "LSAN_OPTIONS": "exitcode=99",
            "UBSAN_OPTIONS": f"log_path={log}:halt_on_error=1:print_stacktrace=1",
            "TSAN_OPTIONS": f"log_path={log}:exitcode=66:second_deadlock_stack=1",
        }
        if self.mode in SECONDS:
            env.setdefault("NPK_SCALE", "0.25")
        return env

    def add(self, suite, name, outcome, reason=""):
        self.results.append({"suite": suite, "name": name, "outcome": outcome, "reason": reason})

    def take_reports(self, suite, name):
        """A sanitizer's report is a failure of its own, whatever the program that got it returned."""
        for path in sorted(self.reports.iterdir()):
            text = path.read_text(errors="replace")
            print(text, flush=True)
            self.add(suite, f"{name}: {path.name}", FAILED, text[:4000])
            path.unlink()

    # --- C programs ---

    def c_programs(self):
        found = sorted((self.build / "tests").glob("*/test_*"))
        found = [p for p in found if p.is_file() and os.access(p, os.X_OK) and p.suffix == ""]
        if self.mode == "tsan":      # pure functions without a thread: minutes that find nothing
            for p in [p for p in found if p.parent.name == "kernels"]:
                self.add(str(p.relative_to(self.build)), "all of it", SKIPPED, "the kernels know no threads")
                found.remove(p)
        return found

    def run_c(self, program):
        suite = str(program.relative_to(self.build))
        env = {**self.env, "CMOCKA_MESSAGE_OUTPUT": "TAP"}
        try:
            done = subprocess.run(self.prefix + [str(program)], env=env, cwd=ROOT, stdin=subprocess.DEVNULL, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
                                  timeout=4 * self.seconds)
            output, status = done.stdout, done.returncode
        except subprocess.TimeoutExpired as e:
            output = (e.stdout or b"").decode(errors="replace") if isinstance(e.stdout, bytes) else (e.stdout or "")
            status = "no end within the time"
        failed, said, tests = False, "", 0
        for line in output.splitlines():
            got = re.match(r"(not ok|ok)\s+(?:\d+\s*)?(?:-\s*)?(.*)", line)
            if not got:
                said = line if line.strip() else said
                if failed and line.startswith("# ") and self.results[-1]["outcome"] == FAILED:
                    self.results[-1]["reason"] += line[2:] + " "
                continue
            tests += 1
            if re.match(r"#\s*SKIP", got[2], re.IGNORECASE):   # cmocka says "not ok 3 # SKIP name"
                self.add(suite, got[2].split(None, 2)[2], SKIPPED, said or "it gives no reason")
            elif got[1] == "not ok":
                failed = True
                self.add(suite, got[2], FAILED)
            else:
                self.add(suite, got[2], PASSED)
            said = ""
        plan = sum(int(n) for n in re.findall(r"^1\.\.(\d+)", output, re.MULTILINE))
        if tests == 0 or tests < plan or (status != 0 and not failed):
            self.add(suite, "the program", FAILED, f"exit status {status}, {tests} of {plan} tests reported")
            failed = True
        if failed:
            print(f"--- {suite}: exit status {status}\n{output[-8000:]}", flush=True)
        else:
            print(f"{suite}: {tests} tests", flush=True)
        self.take_reports("sanitizer", suite)

    # --- pytest ---

    def run_pytest(self, args):
        missing = [name for name in ("numpackfs", "npk") if not (self.build / name).exists()]
        if missing:
            self.add("pytest", "the build", FAILED, f"{' and '.join(missing)} not built in {self.build}")
            return
        xml, temp = self.work / "pytest.xml", self.work / "tmp"
        command = self.prefix + [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={temp}",
                                 f"--rootdir={ROOT}", f"--timeout={self.seconds}", f"--junitxml={xml}", "-o", "junit_family=xunit1",
                                 "--durations=10", *args]
        status = subprocess.run(command, cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL).returncode
        if not xml.exists():
            self.add("pytest", "pytest itself", FAILED, f"exit status {status} and no results")
            return
        failures = 0
        for case in ElementTree.parse(xml).getroot().iter("testcase"):
            name = f"{case.get('file') or case.get('classname')}::{case.get('name')}"
            bad = [e for e in case if e.tag in ("failure", "error")]
            skip = case.find("skipped")
            if bad:
                failures += 1
                self.add("pytest", name, FAILED, (bad[0].get("message") or "")[:1000])
            elif skip is not None:
                self.add("pytest", name, SKIPPED, skip.get("message") or "it gives no reason")
            else:
                self.add("pytest", name, PASSED)
        if status not in (0, 1) or (status == 1 and not failures):
            self.add("pytest", "pytest itself", FAILED, f"exit status {status}")
        self.take_reports("sanitizer", "pytest")

    def left_behind(self):
        """Whatever the tests do, no mount of theirs may outlive them."""
        with open("/proc/self/mountinfo") as f:
            lines = [line.split()[4] for line in f if str(self.work) in line.split()[4]]
        for path in lines:
            self.add("mounts", path, FAILED, "the mount was left behind")
            subprocess.run(["fusermount3", "-u", "-z", path])

    # --- the end ---

    def summary(self, started):
        count = {o: sum(r["outcome"] == o for r in self.results) for o in (PASSED, FAILED, SKIPPED)}
        for r in self.results:
            if r["outcome"] != PASSED:
                reason = " ".join(r["reason"].split())[:300]
                print(f"{r['outcome'].upper()} {r['suite']} {r['name']}" + (f": {reason}" if reason else ""))
        (self.build / "results.json").write_text(json.dumps(
            {"mode": self.mode, "seconds": round(time.monotonic() - started, 1), **count, "results": self.results}, indent=1) + "\n")
        if not count[FAILED]:
            shutil.rmtree(self.work)
        print(f"{count[PASSED]} passed, {count[FAILED]} failed, {count[SKIPPED]} skipped", flush=True)
        return 0 if count[PASSED] and not count[FAILED] else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("-k", dest="expression", help="as pytest's")
    parser.add_argument("paths", nargs="*", help="files or directories with Python tests")
    args = parser.parse_args()
    # A shell starts background jobs with SIGINT ignored, and that would be inherited by every program under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    run = Run(args.build.resolve())
    if not args.expression and not args.paths:
        for program in run.c_programs():
            run.run_c(program)
    run.run_pytest((["-k", args.expression] if args.expression else []) + (args.paths or [str(TESTS)]))
    run.left_behind()
    return run.summary(started)


if __name__ == "__main__":
    sys.exit(main())
