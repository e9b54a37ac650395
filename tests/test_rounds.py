"""The shards of a round: made from the policy as it is, once, and never from another."""

from types import SimpleNamespace

import pytest

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.generate import Sampling
from rlaifv_pl.feedback.pair import PairRule
from rlaifv_pl.feedback.run import Feedback
from rlaifv_pl.models.policy import PolicySpec
from rlaifv_pl.objectives import SFTModule
from rlaifv_pl.objectives.base import RunError
from rlaifv_pl.rounds import Rounds
from rlaifv_pl.world import shipped
from rlaifv_pl.world.claims import ExactLabeler, divide, is_true
from rlaifv_pl.world.scenes import Scene
from rlaifv_pl.world.shards import Scenes


@pytest.fixture(scope="module")
def module():
    module = SFTModule(policy=PolicySpec(path=str(shipped("base"))), optimizer=None)
    module.configure_model()
    return module


@pytest.fixture
def trainer(tmp_path):
    """What of a trainer a round looks at."""
    return SimpleNamespace(default_root_dir=str(tmp_path / "run"), ckpt_path=None, world_size=1)


def rounds(tmp_path, n: int = 4, temperature: float = 1.0, gap: int = 1) -> Rounds:
    prompts = Scenes(out=str(tmp_path / "prompts"), split="tune", count=6, seed=1).ensure()
    rule = PairRule(min_gap=gap, equal_claims=True)
    sampling = Sampling(n=n, temperature=temperature, max_new_tokens=60)
    return Rounds(str(prompts), Feedback(divide=divide, labeler=ExactLabeler(), rule=rule, sampling=sampling))


def test_a_rounds_pairs_prefer_what_is_true(module, trainer, tmp_path):
    stored = load_shards(rounds(tmp_path).ensure_round(trainer, module, 0))
    assert len(stored) > 0 and stored.manifests[0].round == 0
    for index in range(len(stored)):
        sample = stored[index]
        scene = Scene.from_json(sample.extra["scene"])
        false = [
            sum(not is_true(scene, claim.question) for claim in divide(text))
            for text in (sample.chosen, sample.rejected)
        ]
        assert false[0] < false[1]


def test_a_round_is_made_once_and_again_the_same(module, trainer, tmp_path):
    out = rounds(tmp_path).ensure_round(trainer, module, 0)
    (shard,) = out.glob("*.tar")
    before, data = shard.stat().st_mtime_ns, shard.read_bytes()
    rounds(tmp_path).ensure_round(trainer, module, 0)
    assert shard.stat().st_mtime_ns == before
    (out / "manifest.json").unlink()  # As a kill before the end would leave it.
    rounds(tmp_path).ensure_round(trainer, module, 0)
    assert shard.read_bytes() == data


def test_other_settings_or_another_policy_make_it_anew_but_not_in_a_resumed_run(
    module, trainer, tmp_path, monkeypatch
):
    rounds(tmp_path).ensure_round(trainer, module, 0)
    out = rounds(tmp_path, n=5).ensure_round(trainer, module, 0)
    first = load_shards(out).manifests[0].recipe_hash
    monkeypatch.setattr(module, "base_weights", "others")
    rounds(tmp_path, n=5).ensure_round(trainer, module, 0)
    assert load_shards(out).manifests[0].recipe_hash != first
    trainer.ckpt_path = "last.ckpt"
    rounds(tmp_path, n=5).ensure_round(trainer, module, 0)
    with pytest.raises(RunError, match="made with other settings"):
        rounds(tmp_path, n=4).ensure_round(trainer, module, 0)


def test_a_round_without_pairs_says_what_to_change(module, trainer, tmp_path):
    for _again in range(2):
        with pytest.raises(RunError, match="no two candidates of the 6 prompts make a pair"):
            rounds(tmp_path, gap=50).ensure_round(trainer, module, 0)


def test_more_than_one_process_is_refused(module, trainer, tmp_path):
    trainer.world_size = 2
    with pytest.raises(RunError, match=r"trainer\.devices=1"):
        rounds(tmp_path).on_fit_start(trainer, module)
