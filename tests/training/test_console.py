"""What a run says at its start."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlaifv_pl.models.policy import PolicySpec
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.training.console import PrintSummary


@pytest.mark.parametrize("reason", ["", "Tiny has layers that carry a state from token to token (conv)"])
def test_a_policy_that_cannot_share_prefixes_says_why(
    family_dir: Callable[[str], Path], capsys: pytest.CaptureFixture, reason: str
):
    module = DPOModule(policy=PolicySpec(path=str(family_dir("llava"))), optimizer=torch.optim.SGD)
    module.configure_model()
    module.policy.reason = reason
    PrintSummary().on_fit_start(None, module)
    said = " ".join(capsys.readouterr().err.split())
    assert "DPOModule" in said
    assert ("attention: rows" in said) == bool(reason) and reason in said
