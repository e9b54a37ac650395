"""docs/your-labeler.md: the classes that it names can be named in a config, and its own labeler will do."""

import re
from importlib import import_module

import pytest

from rlaifv_pl.cli.own_classes import lacking
from rlaifv_pl.feedback.claims.splitter import Splitter
from rlaifv_pl.feedback.engines.engine import Engine
from rlaifv_pl.feedback.judges.labeler import Labeler
from tests.training.tiny import REPOSITORY

PAGE = (REPOSITORY / "docs" / "your-labeler.md").read_text()
NAMED = sorted(set(re.findall(r"`(rlaifv_pl(?:\.\w+)+)`", PAGE)))


@pytest.mark.parametrize("path", NAMED)
def test_each_class_is_where_the_page_says_and_can_do_what_is_asked_of_it(path):
    module, _, name = path.rpartition(".")
    given = getattr(import_module(module), name)
    kinds = {"Labeler": Labeler, "Splitter": Splitter, "Answer": Splitter, "Engine": Engine, "OfN": Engine}
    (protocol,) = {kinds[end] for end in kinds if name.endswith(end)}
    assert lacking(given, protocol) == []


def test_the_pages_own_labeler_will_do():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    made: dict = {}
    exec(code, made)
    assert len(NAMED) >= 9 and lacking(made["Detector"], Labeler) == []
    (verdict,) = made["Detector"]().verdicts([None], ["?"], None)
    assert (verdict.yes, verdict.no) == (0.9, 0.1)
