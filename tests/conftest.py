"""Settings and fixtures that all tests share: no network, one thread, tiny checkpoints built once."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported, so before the imports below
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

from rlaifv_pl.cli.trust import trust_packages
from tests.families import build, unsupported_reason
from tests.kill.start import Warm

torch.set_num_threads(1)
trust_packages(["--trust-config", "tests"])  # Stand-ins of the tests are named as configs name classes.


@pytest.fixture(scope="session")
def family_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`family_dir("llava")` is a folder with that family's tiny checkpoint; do not write into it.

    Skips the test when the family needs a package that is not there.
    """
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if reason := unsupported_reason(family):
            pytest.skip(reason)
        if family not in built:
            built[family] = build(family, tmp_path_factory.mktemp("family") / family)
        return built[family]

    return get


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Starts commands without the seconds that imports take, and kills them."""
    with Warm(tmp_path_factory.mktemp("notes")) as starts:
        yield starts
