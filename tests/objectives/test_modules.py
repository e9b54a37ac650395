"""The three objectives on the tiny families: from samples through the collator to losses and checkpoints."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.models import vlm
from rlaifv_pl.models.policy import LoRA, PolicySpec
from rlaifv_pl.models.prefix_tree import Forest
from rlaifv_pl.objectives import DPOModule, NSFTModule, SFTModule
from rlaifv_pl.objectives.base import AlignmentModule, RunError
from rlaifv_pl.objectives.checks import check_tree
from rlaifv_pl.objectives.lr_schedule import lr_factor
from rlaifv_pl.objectives.terms import BCO, NLL, Sigmoid, SimPO
from rlaifv_pl.records import Correction, Sample
from tests.families import FAMILIES, build
from tests.models.plain import PAIRS, TEXT_ONLY, answer_logps, completion_logps, photo

MIXED = [*PAIRS, TEXT_ONLY]
ADAPTERS = {"lora": LoRA(rank=4)}
MODES = {"live": {}, "adapter_off": ADAPTERS}


def make(
    objective: type[AlignmentModule], path: Path, policy: dict | None = None, lr: float = 1e-2, **options
) -> Any:
    """A module with its model loaded, as a trainer has it when training starts."""
    spec = PolicySpec(path=str(path), **(policy or {}))
    module = objective(policy=spec, optimizer=partial(torch.optim.SGD, lr=lr), warmup=0.0, **options)
    module.configure_model()
    return module


def sgd_step(module: AlignmentModule, loss: Tensor) -> None:
    optimizer = module.configure_optimizers()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


class Batches(L.LightningDataModule):
    """One batch for each list of samples, in this order."""

    def __init__(self, *batches: Sequence[Sample], on_bad_sample: str = "raise") -> None:
        super().__init__()
        self.batches, self.on_bad_sample = batches, on_bad_sample

    def batches_per_epoch(self) -> int:
        return len(self.batches)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        collate = self.trainer.lightning_module.collator(self.on_bad_sample)
        return torch.utils.data.DataLoader(self.batches, batch_size=None, collate_fn=collate)


def fit(module: AlignmentModule, data: L.LightningDataModule, folder: Path, **options) -> L.Trainer:
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, max_epochs=1, **options,
    )  # fmt: skip
    trainer.fit(module, data)
    return trainer


@pytest.fixture(params=FAMILIES)
def path(request: pytest.FixtureRequest, family_dir: Callable[[str], Path]) -> Path:
    return family_dir(request.param)


@pytest.fixture
def llava(family_dir: Callable[[str], Path]) -> Path:
    return family_dir("llava")


# --- DPO ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_dpo_starts_at_ln_2_and_a_step_raises_the_margin(path: Path, mode: str):
    """At step 0 policy and reference agree, d = 0 and -log s(0) = ln 2 whatever beta is."""
    module = make(DPOModule, path, MODES[mode], reference=mode)
    batch = module.collator("raise")(MIXED)
    start = module.objective(batch)
    assert start.loss.item() == pytest.approx(math.log(2), abs=1e-6)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert start.metrics[name].item() == pytest.approx(0, abs=1e-6)

    module.policy.eval()  # without the adapters' dropout
    sgd_step(module, module.objective(batch).loss)
    after = module.objective(batch)
    assert after.metrics["rewards/margins"].item() > 1e-4
    assert after.loss.item() < start.loss.item() - 1e-5


def test_dpo_loss_equals_own_arithmetic_away_from_the_start(llava: Path):
    """-log s(0.3 [(p_c - q_c) - (p_r - q_r)]) on sums of the plain log-ps, reference log-ps taken before."""
    module = make(DPOModule, llava, losses=[Sigmoid(beta=0.3)])
    processor, model = module.processor, module.policy.model

    @torch.no_grad()
    def sums() -> Tensor:
        return torch.tensor([
            [completion_logps(model, processor, "llava", sample, answer, sample.images).sum()
             for answer in (sample.chosen, sample.rejected)] for sample in MIXED
        ])  # fmt: skip

    before = sums()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.policy.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    ratios = sums() - before
    margins = 0.3 * (ratios[:, 0] - ratios[:, 1])
    step = module.objective(module.collator("raise")(MIXED))
    expected = torch.log1p(torch.exp(-margins)).mean()
    assert margins.abs().max() > 0.05
    torch.testing.assert_close(step.loss, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(step.metrics["rewards/margins"], margins.mean(), rtol=0, atol=1e-4)
    torch.testing.assert_close(step.metrics["rewards/chosen"], 0.3 * ratios[:, 0].mean(), rtol=0, atol=1e-4)


def test_dpo_without_a_reference_holds_one_model(llava: Path):
    module = make(DPOModule, llava, losses=[SimPO()], reference="none")
    assert module.reference is None
    step = module.objective(module.collator("raise")(MIXED))
    assert step.metrics["loss/simpo"].item() == pytest.approx(step.loss.item())


def test_a_multi_turn_prompt_is_context_for_both_sides(llava: Path):
    """Answers within the prompt count for neither side; LLaVA's template ends them without a stop token."""
    prompt = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": "A red cup."},
        {"role": "user", "content": "Is it red?"},
    ]
    sample = Sample(key="m", prompt=prompt, images=(photo(3),), chosen="Yes, it is.", rejected="No.")
    module = make(DPOModule, llava)
    metrics = module.objective(module.collator("raise")([sample])).metrics
    context = "USER: <image>\nWhat is this? ASSISTANT: A red cup. USER: Is it red? ASSISTANT:"
    for side, answer in (("chosen", " Yes, it is.</s>"), ("rejected", " No.</s>")):
        (logps,) = answer_logps(module.policy.model, module.processor, [context, answer], sample.images)
        assert metrics[f"logps/{side}"].item() == pytest.approx(logps.sum().item(), abs=1e-4)
        assert metrics[f"lengths/{side}"].item() == len(logps)


def test_dpo_shows_each_side_its_own_image(path: Path):
    """The rejected answer is scored on the rejected image, the chosen one on the sample's own."""
    module = make(DPOModule, path)
    sample = replace(PAIRS[0], rejected_images=(photo(9, 28, 56),))
    metrics = module.objective(module.collator("raise")([sample, TEXT_ONLY])).metrics
    for side, images in (("chosen", sample.images), ("rejected", sample.rejected_images)):
        logps = [
            completion_logps(module.policy.model, module.processor, path.name, one, getattr(one, side), shown)
            for one, shown in ((sample, images), (TEXT_ONLY, ()))
        ]
        expected = sum(value.sum().item() for value in logps) / 2
        assert metrics[f"logps/{side}"].item() == pytest.approx(expected, abs=1e-4)


# --- nSFT ---------------------------------------------------------------------------------------------

CORRECTED = [
    replace(
        PAIRS[0],
        corrections=(
            Correction(question="Are there cats?", answer="No, there are none."),
            Correction(question="Is there a circle?", answer="Yes, a red one."),
        ),
    ),
    replace(PAIRS[1], corrections=(Correction(question="Is there a dog?", answer="No."),)),
]
TURN = {
    "llava": ("USER: {}{} ASSISTANT:", " {}</s>", "<image>\n", " "),
    "qwen3_vl": (
        "<|im_start|>user\n{}{}<|im_end|>\n<|im_start|>assistant\n",
        "{}<|im_end|>",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "\n",
    ),
}
"""How a question, an answer, an image and the end of a turn are written."""


def corrected_logps(module: NSFTModule, family: str, merge: str) -> list[tuple[list[Tensor], list[Tensor]]]:
    """For each sample the token log-ps of its chosen answer, and of its corrections."""
    question, answer, image, between = TURN[family]
    found = []
    for sample in CORRECTED:
        chosen = [question.format(image, sample.prompt), answer.format(sample.chosen)]
        texts = chosen if merge == "append" else []
        for number, correction in enumerate(sample.corrections):
            opening = between if texts else ""
            own_image = image if merge != "append" and number == 0 else ""
            texts = [*texts, opening + question.format(own_image, correction.question)]
            texts = [*texts, answer.format(correction.answer)]
        logps = answer_logps(module.policy.model, module.processor, texts, sample.images)
        if merge == "append":
            found.append((logps[:1], logps[1:]))
        elif merge == "separate":
            found.append((answer_logps(module.policy.model, module.processor, chosen, sample.images), logps))
        else:
            found.append(([], logps))
    return found


@pytest.mark.parametrize("family", TURN)
@pytest.mark.parametrize("merge", ["append", "separate", "corrections_only"])
def test_nsft_equals_own_arithmetic(family: str, merge: str, family_dir: Callable[[str], Path]):
    """token_mean: one mean over all tokens. sum_of_means: mean over chosen tokens plus mean over those of
    the corrections; a part without tokens adds nothing."""
    module = make(NSFTModule, family_dir(family), merge=merge)
    batch = module.collator("raise")(CORRECTED)
    found = corrected_logps(module, family, merge)
    chosen = torch.cat([part for parts, _ in found for part in parts] or [torch.zeros(0)])
    corrections = torch.cat([part for _, parts in found for part in parts])
    assert len(corrections) > 10 and (len(chosen) > 10) == (merge != "corrections_only")

    step = module.objective(batch)
    everything = torch.cat([chosen, corrections])
    torch.testing.assert_close(step.loss, -everything.mean(), rtol=0, atol=1e-4)
    module.reduction = "sum_of_means"
    expected = -corrections.mean() - (chosen.mean() if len(chosen) else 0)
    step = module.objective(batch)
    torch.testing.assert_close(step.loss, expected, rtol=0, atol=1e-4)
    assert (expected + everything.mean()).abs() > 1e-2 or merge == "corrections_only"
    torch.testing.assert_close(step.metrics["loss/corrections"], -corrections.mean(), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        step.metrics["loss/chosen"], -chosen.mean() if len(chosen) else torch.tensor(0.0), rtol=0, atol=1e-4
    )


def test_nsft_takes_a_completion_where_there_is_no_pair(llava: Path):
    """Chosen and completion mean the same here."""
    module = make(NSFTModule, llava)
    unpaired = [replace(s, chosen=None, rejected=None, completion=s.chosen) for s in CORRECTED]
    losses = [module.objective(module.collator("raise")(samples)).loss for samples in (CORRECTED, unpaired)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("mode", MODES)
def test_the_kl_term_is_0_at_the_start_and_equals_own_arithmetic_later(llava: Path, mode: str):
    """k3: exp(r) - 1 - r with r = log q - log p, mean over tokens."""
    module = make(NSFTModule, llava, MODES[mode], kl_weight=0.5, reference=mode)
    module.policy.eval()
    batch = module.collator("raise")(CORRECTED)
    start = module.objective(batch)
    before = module.policy(batch).detach()
    assert start.metrics["kl"].item() == pytest.approx(0, abs=1e-7)
    assert start.loss.item() == pytest.approx(-before.mean().item(), abs=1e-6)
    sgd_step(module, start.loss)

    after = module.objective(batch)
    moved = module.policy(batch).detach()
    ratio = (before - moved).double()
    kl = (ratio.exp() - 1 - ratio).mean().item()
    assert kl > 1e-5
    assert after.metrics["kl"].item() == pytest.approx(kl, rel=1e-2)
    assert after.loss.item() == pytest.approx(-moved.mean().item() + 0.5 * kl, abs=1e-5)


# --- SFT ----------------------------------------------------------------------------------------------


def test_sft_learns_every_answer_of_a_dialogue(llava: Path):
    prompt = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": "A red cup."},
        {"role": "user", "content": "Is it red?"},
    ]
    dialogue = Sample(key="m", prompt=prompt, images=(photo(3),), completion="Yes, it is.")
    single = Sample(key="s", prompt="How many?", completion="Two.")
    module = make(SFTModule, llava)
    step = module.objective(module.collator("raise")([dialogue, single]))
    texts = [
        "USER: <image>\nWhat is this? ASSISTANT:", " A red cup.</s>",
        " USER: Is it red? ASSISTANT:", " Yes, it is.</s>",
    ]  # fmt: skip
    model, processor = module.policy.model, module.processor
    logps = answer_logps(model, processor, texts, dialogue.images)
    logps += answer_logps(model, processor, ["USER: How many? ASSISTANT:", " Two.</s>"], ())
    assert len(logps) == 3
    torch.testing.assert_close(step.loss, -torch.cat(logps).mean(), rtol=0, atol=1e-4)
    assert step.metrics["tokens"].item() == len(torch.cat(logps)) / 2


def test_sft_on_pairs_learns_chosen_alone(path: Path):
    """Rejected answers, and images of the rejected side, change nothing."""
    module = make(SFTModule, path)
    pairs = [replace(PAIRS[0], rejected_images=(photo(9),)), *MIXED[1:]]
    step = module.objective(module.collator("raise")(pairs))
    model, processor = module.policy.model, module.processor
    chosen = [completion_logps(model, processor, path.name, s, s.chosen, s.images) for s in MIXED]
    torch.testing.assert_close(step.loss, -torch.cat(chosen).mean(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("merge", ["append", "separate", "corrections_only"])
def test_nsft_does_not_look_at_images_of_the_rejected_side(llava: Path, merge: str):
    module = make(NSFTModule, llava, merge=merge)
    other = [replace(CORRECTED[0], rejected_images=(photo(9),)), CORRECTED[1]]
    losses = [module.objective(module.collator("raise")(samples)).loss for samples in (CORRECTED, other)]
    assert torch.equal(*losses)


# --- what cannot be meant, and what cannot be used ----------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "options", "remedy"),
    [
        (DPOModule, {"reference": "adapter_off"}, r"Set policy\.lora, or reference: live"),
        (DPOModule, {"reference": "none"}, "Configure a reference"),
        (DPOModule, {"losses": []}, "give at least one term"),
        (DPOModule, {"losses": [SimPO()]}, "Set `reference: none`"),
        (DPOModule, {"losses": [Sigmoid(weight=0.0)]}, "positive weight"),
        (NSFTModule, {"kl_weight": 0.1}, r"Set both \(kl_weight > 0, reference: adapter_off or live\)"),
        (NSFTModule, {"reference": "live"}, "Set both .* or neither"),
        (NSFTModule, {"kl_weight": -1.0, "reference": "live"}, "kl_weight is -1"),
        (NSFTModule, {"kl_weight": 0.1, "reference": "adapter_off"}, r"Set policy\.lora"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_model_is_loaded(objective, options: dict, remedy: str):
    with pytest.raises(ValueError, match=remedy):
        objective(policy=PolicySpec(path="nowhere"), optimizer=torch.optim.SGD, **options)


@pytest.mark.parametrize(
    ("objective", "lacking"),
    [
        (DPOModule, replace(PAIRS[0], key="x", chosen=None, rejected=None, completion="A circle.")),
        (NSFTModule, replace(PAIRS[0], key="x")),
        (NSFTModule, replace(CORRECTED[0], key="x", chosen=None, rejected=None)),
        (SFTModule, replace(PAIRS[0], key="x", chosen=None, rejected=None)),
    ],
)
def test_a_sample_that_lacks_an_answer_is_named_or_dropped(objective, lacking: Sample, llava: Path):
    module = make(objective, llava)
    with pytest.raises(BadSample, match=r"sample x: .* needs .*\[missing_answer\]"):
        module.collator("raise")([CORRECTED[0], lacking])
    batch = module.collator("skip")([lacking, *CORRECTED])
    assert batch.keys == ["a", "b"] and batch.accounting.dropped == [("sample x", "missing_answer")]
    sound = module.collator("raise")(CORRECTED)
    assert torch.equal(module.objective(batch).loss, module.objective(sound).loss)


def test_a_row_over_the_limit_is_too_long_by_its_longer_side(path: Path):
    """The limit counts image tokens; at the length of the longest row nothing is dropped, below it one is."""
    long = replace(PAIRS[0], key="long", rejected=60 * "cup ")
    longest = make(DPOModule, path).collator("raise")([*MIXED, long]).tokens.rows["input_ids"].shape[1]
    fitting = make(DPOModule, path, max_length=longest)
    assert fitting.collator("raise")([*MIXED, long]).keys == ["a", "b", "t", "long"]
    tight = make(DPOModule, path, max_length=longest - 1)
    with pytest.raises(BadSample, match=rf"at most {longest - 1} tokens .*, got {longest}.*\[too_long\]"):
        tight.collator("raise")([*MIXED, long])
    batch = tight.collator("skip")([MIXED[0], long, *MIXED[1:]])
    assert batch.accounting.dropped == [("sample long", "too_long")] and batch.keys == ["a", "b", "t"]
    rest = tight.collator("raise")(MIXED)
    assert all(torch.equal(batch.tokens.rows[name], rest.tokens.rows[name]) for name in rest.tokens.rows)
    assert all(
        torch.equal(batch.tokens.images[name], rest.tokens.images[name]) for name in rest.tokens.images
    )


def test_a_bad_sample_of_the_reader_is_raised_or_dropped(llava: Path):
    """A photo that cannot be decoded is found in the collator, a broken member before it."""
    module = make(DPOModule, llava)
    broken = replace(PAIRS[0], key="x", images=(photo(0)[:60],))
    with pytest.raises(BadSample, match=r"sample x, images\[0\]: .*\[undecodable_image\]"):
        module.collator("raise")([broken])
    batch = module.collator("skip")([broken, PAIRS[1]])
    assert batch.keys == ["b"] and batch.accounting.dropped == [("sample x, images[0]", "undecodable_image")]


def test_training_goes_on_without_bad_samples_and_counts_them(llava: Path, tmp_path: Path):
    """A batch of nothing moves nothing: the weights are those of a run without the bad samples."""
    bad = replace(PAIRS[0], key="x", rejected=None)
    skipping, clean = (make(DPOModule, llava, schedule="constant") for _ in range(2))
    fit(skipping, Batches([bad], [bad, PAIRS[0]], PAIRS, on_bad_sample="skip"), tmp_path)
    fit(clean, Batches([PAIRS[0]], PAIRS), tmp_path)
    assert skipping.dropped == Counter(missing_answer=2)
    for (name, one), other in zip(skipping.policy.named_parameters(), clean.policy.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_training_logs_the_terms_and_follows_the_schedule(llava: Path, tmp_path: Path):
    """Cosine without warm-up over 4 steps: shares 1, 0.854, 0.5, 0.146 of the rate."""
    seen = []

    class Note(L.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append({name: value.item() for name, value in trainer.callback_metrics.items()})

    module = make(DPOModule, llava, losses=[Sigmoid(), NLL(weight=0.5)])
    fit(module, Batches(*[PAIRS] * 4), tmp_path, callbacks=[Note()])
    assert [step["train/lr"] / 1e-2 for step in seen] == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-5)
    for step in seen:
        parts = step["train/loss/sigmoid"] + 0.5 * step["train/loss/nll"]
        assert step["train/loss"] == pytest.approx(parts, abs=1e-5)
    assert seen[-1]["train/rewards/margins"] > seen[0]["train/rewards/margins"]


def test_the_rate_rises_and_falls_to_nothing():
    """10 steps, 2 of warm-up: 1/2, 1, then along the line from 1 to 0 at step 10."""
    shares = [lr_factor(step, 10, 0.2, "linear") for step in range(11)]
    assert shares == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])
    assert {lr_factor(step, 10, 0.0, "constant") for step in range(12)} == {1.0}
    assert lr_factor(12, 10, 0.2, "linear") == 0


# --- gradients that are missing -----------------------------------------------------------------------

UNREAD = ["*vision_tower*.layers.1.*", "*vision_tower*.post_layernorm.*"]
"""LLaVA reads the second last layer of its tower, so the last one never learns."""


def test_a_parameter_without_a_gradient_fails_by_name_and_the_remedy_helps(llava: Path, tmp_path: Path):
    module = make(DPOModule, llava, {"freeze_vision": False})
    with pytest.raises(RuntimeError, match=r"got no gradient .*layers\.1\..*policy\.freeze"):
        fit(module, Batches(PAIRS), tmp_path)
    healed = make(DPOModule, llava, {"freeze_vision": False, "freeze": UNREAD})
    assert fit(healed, Batches(PAIRS), tmp_path).global_step == 1


def test_a_first_batch_without_images_is_no_reason_to_fail(llava: Path, tmp_path: Path):
    """A blank image gives the projector a gradient of zero; what lacks one is told all the same."""
    assert fit(make(DPOModule, llava), Batches([TEXT_ONLY], PAIRS), tmp_path).global_step == 2
    module = make(DPOModule, llava, {"freeze_vision": False})
    with pytest.raises(RuntimeError, match="got no gradient"):
        fit(module, Batches([TEXT_ONLY], PAIRS), tmp_path)
    assert module.global_step == 0


# --- checkpoints --------------------------------------------------------------------------------------


def saved(module: AlignmentModule, folder: Path) -> dict[str, Any]:
    """The checkpoint after one step."""
    trainer = fit(module, Batches(PAIRS), folder)
    trainer.save_checkpoint(folder / "one.ckpt")
    return torch.load(folder / "one.ckpt", weights_only=False)


@pytest.mark.parametrize("family", ["llava", "gemma3"])
@pytest.mark.parametrize("policy", [{}, {"freeze": ["*embed_tokens*"]}, ADAPTERS])
def test_a_checkpoint_holds_what_is_trained_and_heals_the_rest(
    family: str, policy: dict, family_dir, tmp_path
):
    """Gemma's head is its embedding: one weight by two names, which is frozen or trained as one."""
    module = make(DPOModule, family_dir(family), policy)
    state = saved(module, tmp_path)["state_dict"]
    named = list(module.policy.named_parameters(prefix="policy", remove_duplicate=False))
    assert set(state) == {name for name, parameter in named if parameter.requires_grad}

    fresh = make(DPOModule, family_dir(family), policy)
    checkpoint = torch.load(tmp_path / "one.ckpt", weights_only=False)
    fresh.on_load_checkpoint(checkpoint)
    fresh.load_state_dict(checkpoint["state_dict"], strict=True)
    for (name, one), other in zip(module.policy.named_parameters(), fresh.policy.parameters(), strict=True):
        assert torch.equal(one, other), name
    batch = module.collator("raise")(MIXED)
    module.policy.eval(), fresh.policy.eval()
    assert torch.equal(module.objective(batch).loss, fresh.objective(batch).loss)


def test_a_checkpoint_keeps_the_running_mean_of_bco(llava: Path, tmp_path: Path):
    state = saved(make(DPOModule, llava, losses=[BCO()]), tmp_path)["state_dict"]
    assert state["losses.0.num_rewards"].item() == 4
    assert not any(name.startswith("reference") for name in state)


def test_a_checkpoint_of_another_policy_is_refused_by_names(llava: Path, tmp_path: Path):
    saved(make(DPOModule, llava), tmp_path)
    other = make(DPOModule, llava, {"freeze_projector": True})
    checkpoint = torch.load(tmp_path / "one.ckpt", weights_only=False)
    with pytest.raises(RuntimeError, match=r"missing \[\], unexpected \['policy\..*multi_modal_projector"):
        other.on_load_checkpoint(checkpoint)
    adapters = make(DPOModule, llava, ADAPTERS)
    with pytest.raises(
        RuntimeError, match=r"missing \['policy\..*lora_A.*unexpected \['policy\..*config\.yaml"
    ):
        adapters.on_load_checkpoint(checkpoint)


def test_a_checkpoint_of_another_base_is_refused(llava: Path, tmp_path: Path):
    """Same shapes, other weights: what is frozen and the reference would not be those of the run."""
    saved(make(DPOModule, llava), tmp_path)
    other = make(DPOModule, build("llava", tmp_path / "other", seed=5))
    checkpoint = torch.load(tmp_path / "one.ckpt", weights_only=False)
    with pytest.raises(RuntimeError, match=r"policy\.path, .*other, holds other weights"):
        other.on_load_checkpoint(checkpoint)


@pytest.mark.parametrize("mode", MODES)
def test_a_loaded_checkpoint_goes_on_with_the_reference_of_the_start(llava: Path, mode: str):
    """The next loss equals that of the module which was never saved."""
    first, second = (make(DPOModule, llava, MODES[mode], reference=mode, lr=0.3) for _ in range(2))
    batch = first.collator("raise")(PAIRS)
    first.policy.eval(), second.policy.eval()
    sgd_step(first, first.objective(batch).loss)
    checkpoint = {"state_dict": first.state_dict()}
    first.on_save_checkpoint(checkpoint)
    second.on_load_checkpoint(checkpoint)
    second.load_state_dict(checkpoint["state_dict"])
    expected = first.objective(batch).loss
    assert abs(expected.item() - math.log(2)) > 1e-3
    torch.testing.assert_close(second.objective(batch).loss, expected, rtol=0, atol=1e-6)


# --- prefixes that are shared -------------------------------------------------------------------------


@pytest.mark.parametrize("merge", ["append", "separate", "corrections_only"])
def test_dialogues_about_one_image_share_their_opening(path: Path, merge: str):
    """Up to the first word in which prompt and first question differ; one dialogue has nothing to share."""
    batch = make(NSFTModule, path, merge=merge).collator("raise")(CORRECTED)
    assert [branch.start for branch in batch.layout.branches[:2]] == [0, 0]
    assert len(batch.layout.branches) == (4 if merge == "separate" else 2)
    if merge == "separate":
        for row in (2, 3):
            parent, start, _ = batch.layout.branches[row]
            one, other = batch.tokens.rows["input_ids"][parent], batch.tokens.rows["input_ids"][row]
            assert parent == row - 2 and start > 3
            assert torch.equal(one[:start], other[:start]) and one[start] != other[start]


def test_an_image_behind_the_shared_opening_keeps_rows(llava: Path):
    """The prompt shows it in its second turn, the corrections in their first: it would be needed twice."""
    shown = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    prompt = [
        {"role": "user", "content": "Can you see?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": shown},
    ]
    sample = replace(CORRECTED[1], prompt=prompt)
    module = make(NSFTModule, llava, merge="separate")
    assert module.collator("raise")([sample]).layout.branches is None
    assert module.collator("raise")([sample, CORRECTED[0]]).layout.branches is None


def test_continual_sft_has_a_tree_of_one_branch_for_each_answer(llava: Path):
    batch = make(SFTModule, llava).collator("raise")(MIXED)
    assert [branch.start for branch in batch.layout.branches] == [0] * len(MIXED)


@pytest.mark.parametrize("attention", ["dense", "split", "rows"])
def test_the_attention_changes_no_loss_and_no_weight(llava: Path, tmp_path: Path, attention: str):
    """Three steps, the adapters' dropout left out; the first layout is checked against rows on the way."""
    lora = {"lora": LoRA(rank=4, dropout=0.0)}
    one, other = (make(DPOModule, llava, {**lora, "attention": kind}) for kind in (attention, "rows"))
    other.load_state_dict(one.state_dict())
    for module in (one, other):
        fit(module, Batches(PAIRS, MIXED, PAIRS), tmp_path)
    for (name, mine), theirs in zip(one.policy.named_parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5, msg=name)
    assert one._tree_is_checked == (attention != "rows")


@pytest.mark.parametrize("mistake", ["sees", "positions"])
def test_a_layout_that_gives_other_log_ps_is_not_trained_on(
    llava: Path, tmp_path: Path, mistake: str, monkeypatch: pytest.MonkeyPatch
):
    module = make(DPOModule, llava, {"attention": "dense"})
    if mistake == "sees":
        monkeypatch.setattr(
            Forest, "sees", lambda _self, line, query, key, _mask: (key <= query) & (line >= 0)
        )
    else:
        monkeypatch.setattr(
            vlm, "positions", lambda _m, _i, forest: torch.arange(forest.token.numel()).view_as(forest.token)
        )
    before = [parameter.clone() for parameter in module.policy.parameters()]
    with pytest.raises(RunError, match=r"differ by \d.* nats .*0\.001 is what .* policy\.attention: rows"):
        fit(module, Batches(PAIRS), tmp_path)
    assert all(torch.equal(*both) for both in zip(before, module.policy.parameters(), strict=True))


def test_the_check_of_the_layout_draws_no_random_number(llava: Path):
    """So that a run gives the same with and without it, and a resumed one goes on the same."""
    module = make(DPOModule, llava, {"lora": LoRA(rank=4, dropout=0.5)})
    batch, state = module.collator("raise")(MIXED), torch.get_rng_state()
    check_tree(module.policy, batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.policy.training
