"""Advice: each change with what it comes to, the best first."""

from dataclasses import replace

import pytest

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.models.policy import LoRA
from rlaifv_pl.preflight.advice import Case, advise
from rlaifv_pl.preflight.machine import Machine
from rlaifv_pl.preflight.memory import Situation, memory_of
from rlaifv_pl.preflight.parallelism import Parallelism
from tests.preflight.test_shapes import dpo
from tests.training.tiny import write_pairs

MACHINE = Machine(memory=10**9, devices=1, nodes=1, is_cuda=False)


@pytest.fixture
def case(family_dir, tmp_path):
    """Four pairs under a live reference, and one of them alone."""
    samples = load_shards([write_pairs(tmp_path / "shards", 4)])
    module = dpo(family_dir("llava"), reference="live")
    batch, alone = (module.collator("raise")([samples[n] for n in range(count)]) for count in (4, 1))
    return Case(module, Situation(batch, Parallelism(), is_cuda=False, accumulates=True)), alone


def test_each_change_comes_to_what_the_changed_run_takes(case, family_dir):
    case, alone = case
    before = case.memory().total
    advice = advise(case, MACHINE, lambda: alone, room=before - 1)
    found = {each.words: each.total for each in advice}
    changed = {
        "model.policy.gradient_checkpointing: true": (dict(checkpointing=True, reference="live"), case.now),
        "model.reference: cached": (dict(reference="cached"), case.now),
        "--config lora": (dict(lora=LoRA(), reference="adapter_off"), case.now),
        "data.batch_size: 1": (dict(reference="live"), replace(case.now, batch=alone)),
    }
    expected = {
        words: memory_of(dpo(family_dir("llava"), **options), now).total
        for words, (options, now) in changed.items()
    }
    assert found == {words: total for words, total in expected.items() if total < before}
    assert len(found) >= 3 and [each.total for each in advice] == sorted(found.values())


def test_where_no_change_is_enough_several_are_told_together(case):
    case, alone = case
    alone_best = advise(case, MACHINE, lambda: alone, room=case.memory().total)[0].total
    together = advise(case, MACHINE, lambda: alone, room=alone_best - 1)[-1]
    assert " and " in together.words and together.total < alone_best
    assert " and " not in advise(case, MACHINE, lambda: alone, room=0)[-1].words  # Nothing is enough.
