"""Help is answered without the large libraries, and Ctrl-C while they are imported is a line."""

import subprocess
import sys

import pytest

LARGE = ("torch", "lightning", "transformers", "torchmetrics", "jsonargparse", "datasets")
HELP = """
import sys
from rlaifv_pl.cli import commands
commands.main({words!r})
sys.exit(", ".join(name for name in {large!r} if name in sys.modules))
"""
INTERRUPTED = """
import sys
class Finder:
    def find_spec(self, name, *_):
        if name == "jsonargparse":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from rlaifv_pl.cli import commands
commands.main(["pope", "objects.json", "out.json"])
"""


def run(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["shards", "--help"], ["fit", "--help"], ["validate", "--help"], ["preflight", "--help"]],
)
def test_help_imports_no_large_library(words):
    done = run(HELP.format(words=words, large=LARGE))
    assert not done.stderr.strip() and "usage: rlaifv" in done.stdout


def test_ctrl_c_during_imports_is_a_line():
    done = run(INTERRUPTED)
    assert done.returncode == 130 and "Interrupted" in done.stderr and "Traceback" not in done.stderr
