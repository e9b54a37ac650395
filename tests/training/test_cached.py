"""A cached reference trains as a live one does, holds one model, and is never another's."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlaifv_pl.cli.fit import main
from rlaifv_pl.data.reference_logps import assemble_logps, split_by_sample
from rlaifv_pl.data.sidecar import SidecarError, Sidecars
from rlaifv_pl.models.policy import PolicyError
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.objectives.base import RunError
from tests.models.plain import PAIRS, TEXT_ONLY
from tests.objectives.test_modules import make
from tests.training.test_resume import killed_at
from tests.training.tiny import dpo_config, run, table, write_config, write_pairs

PAIRS_IN_ALL, VAL = 12, 5  # shards of 5: 5, 5, 2
COLUMNS = ("train/loss", "train/rewards/chosen", "train/rewards/rejected", "val/loss", "val/rewards/margins")


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, Path]:
    return write_pairs(tmp_path / "pairs", PAIRS_IN_ALL), write_pairs(tmp_path / "val", VAL, seed=1)


def config(family_dir, shards, directory: Path, reference: str, lora: bool = False, **trainer) -> str:
    settings = dpo_config(family_dir("llava"), shards[0], data={"val": str(shards[1])})
    options = settings["model"]["init_args"]
    options["reference"] = reference
    if lora:
        options["policy"] = {"path": str(family_dir("llava")), "lora": {"rank": 2, "dropout": 0.0}}
    settings["trainer"] |= {"default_root_dir": str(directory), **trainer}
    return str(write_config(directory.parent / f"{directory.name}.yaml", settings))


def directories(shards: Path) -> list[Path]:
    return sorted(shards.glob("reference-*"))


def assert_equal_runs(one: Path, other: Path) -> None:
    for column in COLUMNS:
        expected, found = table(one, column), table(other, column)
        assert list(found) == list(expected) and expected
        for step, value in expected.items():
            assert float(found[step]) == pytest.approx(float(value), rel=1e-4, abs=1e-5), (column, step)


@pytest.mark.parametrize("lora", [False, True], ids=["weights", "adapters"])
def test_a_cached_reference_trains_as_a_live_one(family_dir, shards, tmp_path, lora):
    for reference in ("live", "cached"):
        main(["fit", "--config", config(family_dir, shards, tmp_path / reference, reference, lora)])
    assert_equal_runs(tmp_path / "live", tmp_path / "cached")
    margins = table(tmp_path / "cached", "train/rewards/margins")
    assert abs(float(margins[0])) < 1e-5 and abs(float(margins[max(margins)])) > 1e-3
    names = [path.name for path in directories(shards[0])[0].iterdir()]
    assert sorted(names) == [f"shard-00000{number}.safetensors" for number in range(3)]
    assert len(directories(shards[1])) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("reference", ["live", "cached"])
def test_step_0_is_ln_2_in_narrow_types_too(family_dir, shards, tmp_path, reference, precision, dtype):
    """A cached log-p that was rounded with the pixels would be off by tenths of a nat; in other company bfloat16
    itself is off by hundredths."""
    path = config(family_dir, shards, tmp_path / "run", reference, precision=precision, max_epochs=1)
    main(["fit", "--config", path, "--model.policy.dtype", dtype, "--export.enabled", "false"])
    allowed = 1e-5 if reference == "live" else 2e-3
    assert float(table(tmp_path / "run", "train/loss")[0]) == pytest.approx(math.log(2), abs=allowed)


def test_one_model_is_held(family_dir):
    live, cached = (make(DPOModule, family_dir("llava"), reference=mode) for mode in ("live", "cached"))
    assert cached.reference is None and live.reference.copy is not None
    with pytest.raises(RunError, match=r"reference: cached needs batches of AlignmentDataModule"):
        cached.objective(cached.collator("raise")(PAIRS))


def test_log_ps_come_back_to_the_last_bit_in_any_company(family_dir):
    module = make(DPOModule, family_dir("llava"))
    module.double()
    collate = module.collator("raise")
    samples = [*PAIRS, TEXT_ONLY]
    batch = wide(collate(samples))
    logps = module.policy(batch).detach()
    kept = dict(zip(batch.keys, split_by_sample(batch, logps), strict=True))
    assert torch.equal(assemble_logps(batch, [kept[key] for key in batch.keys]), logps)
    other = wide(collate([samples[2], samples[0]]))
    found = assemble_logps(other, [kept[key] for key in other.keys])
    torch.testing.assert_close(found, module.policy(other).detach(), rtol=0, atol=1e-10)
    with pytest.raises(SidecarError, match=r"sample t: .* other tokens"):
        assemble_logps(other, [kept["a"], kept["t"]])


def moved_target(batch):
    """One target fewer, and one more at the same place: as many, of which one is another token."""
    batch.tokens.labels = batch.tokens.labels.clone()
    batch.tokens.labels[0] += 1


def other_part(batch):
    batch.tokens.sequence_id = batch.tokens.sequence_id.clone()
    batch.tokens.sequence_id[batch.tokens.sequence_id % 2 == 0] ^= 2


def other_view(batch):
    batch.layout.views = [(place, not rejected) for place, rejected in batch.layout.views]


@pytest.mark.parametrize("change", [moved_target, other_part, other_view])
def test_log_ps_are_of_targets_parts_and_images_too(family_dir, change):
    """The row's tokens and the places of its targets stay as they are."""
    collate = make(DPOModule, family_dir("llava")).collator("raise")
    batch = collate(PAIRS[:2])
    kept = split_by_sample(batch, torch.zeros(len(batch.tokens.labels)))
    assert torch.equal(assemble_logps(collate(PAIRS[:2]), kept), torch.zeros(len(batch.tokens.labels)))
    change(batch)
    with pytest.raises(SidecarError, match="other tokens"):
        assemble_logps(batch, kept)


def wide(batch):
    batch.tokens.images = {name: value.double() for name, value in batch.tokens.images.items()}
    return batch


def killed_and_finished(path: str, shards: Path, kind: str, monkeypatch) -> list:
    """Kill the pass of a run behind its second shard and run it again; what was written, in order."""
    written, write = [], Sidecars.write

    def spy(self, number, values):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append((Path(self.path(number)).parent.parent.name, number))
        write(self, number, values)

    monkeypatch.setattr(Sidecars, "write", spy)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        main(["fit", "--config", path])
    assert written == [("pairs", 0), ("pairs", 1)]
    (directory,) = shards.glob(f"{kind}-*")
    before = {file: file.read_bytes() for file in directory.iterdir()}
    monkeypatch.setattr(Sidecars, "write", lambda self, *a: (written.append(a[0]), write(self, *a)))
    main(["fit", "--config", path])
    assert written[2:] == [2, 0] and all(file.read_bytes() == data for file, data in before.items())
    return written


def test_a_pass_that_was_killed_goes_on_at_the_first_shard_that_is_missing(
    family_dir, shards, tmp_path, monkeypatch
):
    path = config(family_dir, shards, tmp_path / "run", "cached")
    written = killed_and_finished(path, shards[0], "reference", monkeypatch)
    main(["fit", "--config", config(family_dir, shards, tmp_path / "again", "cached")])
    assert len(written) == 4
    assert table(tmp_path / "again", "train/loss") == table(tmp_path / "run", "train/loss")


def test_another_model_or_precision_has_log_ps_of_its_own(family_dir, shards, tmp_path):
    main(["fit", "--config", config(family_dir, shards, tmp_path / "a", "cached", max_epochs=1)])
    other = config(family_dir, shards, tmp_path / "b", "cached", max_epochs=1)
    moved = shutil.copytree(family_dir("llava"), tmp_path / "moved")
    main(["fit", "--config", other, "--model.policy.path", str(moved)])
    assert len(directories(shards[0])) == 1, "the same weights in another place are the same"
    elsewhere = f"--trainer.default_root_dir={tmp_path / 'c'}"
    main(["fit", "--config", other, "--model.policy.path", str(tmp_path / "b" / "export"), elsewhere])
    assert len(directories(shards[0])) == 2
    main(["fit", "--config", other, "--trainer.precision", "bf16-mixed", elsewhere, "--overwrite=true"])
    assert len(directories(shards[0])) == 3


def test_another_chat_template_is_noticed(family_dir, shards, tmp_path):
    main(["fit", "--config", config(family_dir, shards, tmp_path / "a", "cached", max_epochs=1)])
    template = tmp_path / "other.jinja"
    template.write_text("Look. " + (family_dir("llava") / "chat_template.jinja").read_text())
    done = run(
        "fit", "--config", config(family_dir, shards, tmp_path / "b", "cached"),
        "--model.policy.chat_template", template, "--data.num_workers", "1",
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "reference log-ps were computed for other tokens" in done.stderr


def test_a_resumed_run_that_lost_them_computes_them_from_the_model_it_started_from(
    family_dir, shards, tmp_path
):
    path = config(family_dir, shards, tmp_path / "run", "cached")
    killed_at(7, "--config", path)
    shutil.rmtree(directories(shards[0])[0])
    main(["fit", "--config", path, "--ckpt_path", "last"])
    main(["fit", "--config", config(family_dir, shards, tmp_path / "whole", "cached")])
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


def test_one_that_lost_them_and_its_model_stops(family_dir, shards, tmp_path):
    model = shutil.copytree(family_dir("llava"), tmp_path / "model")
    path = config(family_dir, shards, tmp_path / "run", "cached", max_epochs=1)
    main(["fit", "--config", path, "--model.policy.path", str(model)])
    module = make(DPOModule, model, reference="cached")
    module.cached.mark_policy_changed()
    shutil.copy(tmp_path / "run/export/model.safetensors", model / "model.safetensors")
    with pytest.raises(PolicyError, match="holds other weights than"):
        module.cached._model(None)
    module.cached.invalidate()
    module.cached.mark_policy_changed()
    with pytest.raises(PolicyError, match="their model is gone"):
        module.cached._model(None)


def test_two_processes_compute_what_one_does(family_dir, shards, tmp_path):
    made = {}
    for processes in (1, 2):
        trainer = {"devices": processes, "strategy": "ddp" if processes == 2 else "auto", "max_epochs": 1}
        path = config(family_dir, shards, tmp_path / f"run{processes}", "cached", **trainer)
        done = run("fit", "--config", path)
        assert done.returncode == 0, done.stderr[-2000:]
        (directory,) = directories(shards[0])
        made[processes] = {file.name: load_file(file) for file in directory.iterdir()}
        shutil.rmtree(directory)
    assert made[1].keys() == made[2].keys() and len(made[1]) == 3
    for name, tensors in made[1].items():
        assert tensors.keys() == made[2][name].keys()
        for key, value in tensors.items():
            torch.testing.assert_close(made[2][name][key], value, rtol=1e-5, atol=1e-5)
