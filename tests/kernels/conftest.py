"""What is emulated here does not come from the sanitizers' or clang's build: once is enough."""

from harness import MODE

collect_ignore = [] if MODE == "release" else ["test_emulated.py"]
