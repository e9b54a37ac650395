"""Trees under FSDP: a policy in shards over two processes finds what plain rows of a whole one find."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.families import FAMILIES as ALL_FAMILIES
from tests.families import unsupported_reason
from tests.models.sharded import BACKENDS, EXACT, SETTINGS
from tests.training.tiny import REPOSITORY, environment

FAMILIES = [family for family in EXACT if not unsupported_reason(family)]
KNOWN = [family for family in ALL_FAMILIES if not unsupported_reason(family)]
CLOSE = 1e-10


@pytest.fixture(scope="module")
def found(family_dir: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each process found, by family and setting."""
    out = tmp_path_factory.mktemp("sharded")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "tests.models.sharded", str(out), *(str(family_dir(name)) for name in KNOWN)]
    done = subprocess.run(
        command, env=environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=SETTINGS)
def of_processes(request: pytest.FixtureRequest, found: list[dict], family: str) -> list[dict[str, Any]]:
    return [of_process[family][request.param] for of_process in found]


@pytest.mark.parametrize("backend", BACKENDS)
def test_shards_equal_a_whole_policy_with_plain_rows(of_processes: list[dict], backend: str):
    """Log-ps of policy and reference, loss, and gradients averaged over the processes, in float64."""
    for of_process in of_processes:
        assert set(of_process[backend]) == {"logps", "reference", "loss", "gradients"}
        assert max(of_process[backend].values()) < CLOSE, of_process[backend]


def test_the_policy_has_moved_away_from_its_reference(of_processes: list[dict]):
    """Or the comparison would say nothing of the reference."""
    assert all(of_process["margin"] > 0.1 for of_process in of_processes)


def test_a_sharded_reference_follows_the_policy(found: list[dict], family: str):
    for of_process in found:
        for setting in ("full", "full, checkpointing"):
            assert of_process[family][setting]["refreshed"] < CLOSE


def test_flops_are_those_of_the_whole_policy(of_processes: list[dict]):
    for of_process in of_processes:
        sharded, whole = of_process["flops"]
        assert sharded == whole > 1e6


@pytest.mark.parametrize("family", KNOWN)
def test_slices_of_every_family_are_gathered_in_bfloat16(found: list[dict], family: str):
    """What a model does with its own type, in pixels for instance, is that of the weights in use."""
    for of_process in found:
        assert 1e-6 < of_process["bfloat16"][family] < 0.1


@pytest.mark.parametrize("family", KNOWN)
def test_one_process_reads_a_model_and_hands_it_out(found: list[dict], family: str):
    """The others never call from_pretrained; with a reference of its own, and with adapters."""
    for of_process in found:
        assert max(of_process["handed out"][family]) < 1e-4
