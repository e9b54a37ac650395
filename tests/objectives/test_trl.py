"""DPO with TRL's trainer and with ours: the same pairs, the same losses, the same weights."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from rlaifv_pl.models.policy import PolicySpec, vision_tower
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.records import Sample
from tests.models.plain import opened, photo

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

STEPS, PAIRS_A_STEP, RATE = 10, 2, 2e-3
WORDS = (
    "red",
    "blue",
    "circle",
    "square",
    "cup",
    "table",
    "dog",
    "cat",
    "two",
    "three",
    "there",
    "on",
    "the",
)

TEMPLATES = {
    "llava": "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + 'USER: ' }}"
    "{% for block in message['content'] %}{{ '<image>\n' if block['type'] == 'image' else block['text'] }}"
    "{% endfor %}{{ ' ASSISTANT:' + bos_token }}{% else %}"
    "{{ message['content'][0]['text'] + eos_token }}{% endif %}{% endfor %}",
    "qwen3_vl": "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|im_start|>user\n' }}"
    "{% for block in message['content'] %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' if block['type'] == 'image' else block['text'] }}"
    "{% endfor %}{{ '<|im_end|>\n<|im_start|>assistant\n' }}{% else %}"
    "{{ message['content'][0]['text'] + eos_token }}{% endif %}{% endfor %}",
}
"""Templates by which both write the same tokens. TRL adds no beginning token, tokenises answers apart from
their prompts, and learns whatever the template writes behind a stop token: so the template writes the
beginning token, a special token ends the prompt of Llama's vocabulary, and nothing follows an answer."""


def pairs() -> list[Sample]:
    draw = random.Random(0)

    def answer() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(2, 9))) + "."

    return [
        Sample(
            key=f"p{number}",
            prompt=f"Is there a {draw.choice(WORDS)}?",
            images=(photo(number, *draw.choice([(56, 56), (56, 28), (28, 56)])),),
            chosen=answer(),
            rejected=answer(),
        )
        for number in range(STEPS * PAIRS_A_STEP)
    ]


def as_trl_reads_it(sample: Sample) -> dict:
    return {
        "images": opened(sample.images),
        "prompt": [{"role": "user", "content": sample.prompt}],
        "chosen": [{"role": "assistant", "content": sample.chosen}],
        "rejected": [{"role": "assistant", "content": sample.rejected}],
    }


class Recorded(trl.DPOTrainer):
    """TRL's trainer in the order of its rows, with its losses kept as they are and not rounded."""

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, *inputs, **options):
        loss = super().training_step(*inputs, **options)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


def trl_trainer(path: Path, folder: Path) -> Recorded:
    model, reference = (AutoModelForImageTextToText.from_pretrained(path) for _ in range(2))
    vision_tower(model).requires_grad_(False)
    arguments = trl.DPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=None,
        per_device_train_batch_size=PAIRS_A_STEP, num_train_epochs=1, beta=0.1,
        learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0, max_grad_norm=0.0,
        optim="adamw_torch", report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    rows = datasets.Dataset.from_list([as_trl_reads_it(sample) for sample in pairs()])
    processor = AutoProcessor.from_pretrained(path)
    return Recorded(
        model=model, ref_model=reference, args=arguments, train_dataset=rows, processing_class=processor
    )


class InOrder(L.LightningDataModule):
    def batches_per_epoch(self) -> int:
        return STEPS

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        collate = self.trainer.lightning_module.collator("raise")
        return torch.utils.data.DataLoader(pairs(), batch_size=PAIRS_A_STEP, collate_fn=collate)


class Losses(L.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, _trainer, _module, outputs, *_) -> None:
        self.values.append(outputs["loss"].item())


def our_module(path: Path) -> DPOModule:
    module = DPOModule(
        policy=PolicySpec(path=str(path)),
        optimizer=partial(torch.optim.AdamW, lr=RATE, weight_decay=0.0),
        schedule="constant",
        warmup=0.0,
    )
    module.configure_model()
    return module


@pytest.fixture(params=TEMPLATES)
def path(request: pytest.FixtureRequest, family_dir: Callable[[str], Path], tmp_path: Path) -> Path:
    """The family's checkpoint with the template of this file."""
    source, path = family_dir(request.param), tmp_path / request.param
    AutoModelForImageTextToText.from_pretrained(source).save_pretrained(path)
    processor = AutoProcessor.from_pretrained(source)
    processor.chat_template = TEMPLATES[request.param]
    processor.save_pretrained(path)
    return path


def test_losses_and_weights_equal_those_of_trl(path: Path, tmp_path: Path):
    """First the tokens, of every row and of its answer; then ten steps of AdamW at a rate that takes the
    loss far from ln 2."""
    theirs, ours = trl_trainer(path, tmp_path / "trl"), our_module(path)
    for first in range(0, len(pairs()), PAIRS_A_STEP):
        group = pairs()[first : first + PAIRS_A_STEP]
        mine, other = ours.collator("raise")(group), theirs.data_collator(list(map(as_trl_reads_it, group)))
        for row in range(2 * PAIRS_A_STEP):
            ids, real = other["input_ids"][row], other["attention_mask"][row].bool()
            assert (
                mine.tokens.rows["input_ids"][row][mine.tokens.rows["attention_mask"][row].bool()].tolist()
                == ids[real].tolist()
            )
            assert (
                mine.tokens.labels[mine.tokens.sequence_id == row].tolist()
                == ids[other["completion_mask"][row].bool()].tolist()
            )

    theirs.train()
    losses = Losses()
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[losses],
    )  # fmt: skip
    trainer.fit(ours, InOrder())

    assert len(losses.values) == STEPS
    assert losses.values == pytest.approx(theirs.losses, abs=1e-4)
    assert losses.values[0] == pytest.approx(0.693147, abs=1e-5)
    assert max(abs(loss - 0.693147) for loss in losses.values) > 0.03
    start = AutoModelForImageTextToText.from_pretrained(path).state_dict()
    for name, parameter in ours.policy.model.named_parameters():
        torch.testing.assert_close(parameter, theirs.model.get_parameter(name), rtol=0, atol=1e-3, msg=name)
        assert torch.equal(parameter, start[name]) != parameter.requires_grad, name
