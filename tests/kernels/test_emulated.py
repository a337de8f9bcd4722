"""The kernels on CPUs that this machine is not: the ARM levels and the oldest x86-64 under qemu, VNNI and VPOPCNTDQ by the
instructions of libsimde. An emulated CPU checks one case in SHARE, else it would take minutes.

AVX2 runs on the CPU itself only: VMASKMOVPS of qemu 7.2 touches the elements that are masked out, which a real one never
does, and the guarded pages of the checks take that for a read too far.
"""

import os
import pathlib
import subprocess

import pytest

from harness import BUILD, ROOT

SHARE = 16
pytestmark = pytest.mark.timeout(900)    # seconds of a machine that may have other work: ten of its own are usual


def built(mode, target="tests/kernels/bare_kernels"):
    """A program of that mode; a failure to build it is a failure of the test."""
    program = ROOT / "build" / mode / target
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MODE", "B", "CC")}
    done = subprocess.run(["make", "-j2", f"MODE={mode}", str(program.relative_to(ROOT))], cwd=ROOT, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
    return program


def run(*argv, **env):
    done = subprocess.run([str(a) for a in argv], env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace")
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def check(said, cpu, level):
    assert said.splitlines()[-1] == f"CPU {cpu}, checked {level}, 0 failures", said


@pytest.fixture(scope="module")
def arm():
    return built("aarch64")


def test_the_first_arm64(arm):
    """ARMv8.0: nothing but NEON."""
    check(run("qemu-aarch64", "-cpu", "cortex-a53", arm, "neon", SHARE), "neon", "neon")


def test_neon_with_products_of_bytes(arm):
    check(run("qemu-aarch64", "-cpu", "max,sve=off", arm, "neon+", SHARE), "neon", "neon+")


@pytest.mark.parametrize("quarters", [1, 2, 3, 16])
def test_sve(arm, quarters):
    """Vectors of 16 bytes to 256, one length that is no power of two among them."""
    lengths = ",".join(f"sve{128 * n}={'on' if n == quarters or n & n - 1 == 0 and n < quarters else 'off'}" for n in range(1, quarters + 1))
    check(run("qemu-aarch64", "-cpu", f"max,{lengths}", arm, "sve", SHARE), "sve", "sve")


@pytest.mark.parametrize("cpu,level", [("qemu64", "scalar"), ("Nehalem", "sse4.2")])
def test_an_old_x86(cpu, level):
    """No AVX: every instruction outside the per-level files is of the base set."""
    check(run("qemu-x86_64", "-cpu", cpu, built(BUILD.name), level, SHARE), "scalar", level)


def test_a_search_on_the_oldest_x86():
    """Through the library, from stores on disk, with threads."""
    said = run("qemu-x86_64", "-cpu", "qemu64", built(BUILD.name, "tests/prop/test_search"), NPK_SCALE="0.25", CMOCKA_MESSAGE_OUTPUT="TAP")
    assert "\nok " in said and "not ok" not in said, said


def test_vnni_and_vpopcntdq():
    """The rest of AVX-512 these kernels need from the CPU."""
    if " avx512bw " not in pathlib.Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU lacks AVX-512")
    check(run(built("simde"), "avx512+"), "avx512", "avx512+")
