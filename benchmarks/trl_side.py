"""TRL's DPOTrainer, step by step on batches of its own collator."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import trl
import trl.trainer.utils
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from rlaifv_pl.models.policy import vision_tower
from rlaifv_pl.records import Sample


class TRLSide:
    """What TRL's trainer does with a batch, in the order of its loop, without the loop.

    Args:
        path: of the model.
        pairs: some, for the trainer to be built with.
        adapters: LoRA configuration of PEFT; the reference is the policy without them, and a second model
            if there are none.
        rate: learning rate.
        folder: for what the trainer may write.
        checkpointing: compute activations again in the backward pass, which is TRL's default.
    """

    def __init__(
        self,
        path: Path,
        pairs: Sequence[Sample],
        adapters: Any | None,
        rate: float,
        folder: Path,
        checkpointing: bool = False,
    ) -> None:
        count = 1 if adapters else 2
        model, *reference = (AutoModelForImageTextToText.from_pretrained(path) for _ in range(count))
        vision_tower(model).requires_grad_(False)
        self.trainer = trainer = trl.DPOTrainer(
            model=model,
            ref_model=reference[0] if reference else None,
            args=_settings(len(pairs), rate, folder, checkpointing),
            train_dataset=datasets.Dataset.from_list([_as_trl_reads_it(pair) for pair in pairs]),
            processing_class=AutoProcessor.from_pretrained(path),
            peft_config=adapters,
        )
        # What `train` sets up before its loop.
        trainer.create_optimizer()
        trainer.model, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.model_wrapped = trainer.model
        trainer.current_gradient_accumulation_steps = 1
        if checkpointing:
            trainer.model.activation_checkpointing_enable()
        trainer.model.train()

    def collate(self, pairs: Sequence[Sample]) -> dict[str, Any]:
        """A batch."""
        return self.trainer.data_collator([_as_trl_reads_it(pair) for pair in pairs])

    def backward(self, batch: dict[str, Any], answers_only: bool) -> tuple[float, float]:
        """Loss, and norm of the gradients before they are clipped.

        Args:
            batch: of `collate`.
            answers_only: compute the head where answers are, as TRL does on a GPU, and not everywhere, as it
                does on a CPU.
        """
        trainer = self.trainer
        with _head(answers_only):
            loss = trainer.training_step(trainer.model, trainer._prepare_inputs(dict(batch)))
        norm = trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        return loss.item(), norm.item()

    def step(self, batch: dict[str, Any], answers_only: bool) -> None:
        """Train on a batch."""
        self.backward(batch, answers_only)
        self.trainer.optimizer.step()
        self.trainer.model.zero_grad()


@contextmanager
def _head(answers_only: bool) -> Iterator[None]:
    # TRL asks this only to choose the rows of its head; its kernels ask a name of their own.
    asked = trl.trainer.utils._use_triton
    trl.trainer.utils._use_triton = lambda _device: answers_only
    try:
        yield
    finally:
        trl.trainer.utils._use_triton = asked


def _settings(pairs: int, rate: float, folder: Path, checkpointing: bool) -> trl.DPOConfig:
    return trl.DPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=checkpointing, max_length=None,
        per_device_train_batch_size=pairs, max_steps=1000, beta=0.1, learning_rate=rate, weight_decay=0.0,
        max_grad_norm=1.0, optim="adamw_torch", report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip


def _as_trl_reads_it(pair: Sample) -> dict[str, Any]:
    return {
        "images": [Image.open(io.BytesIO(image)).convert("RGB") for image in pair.images],
        "prompt": [{"role": "user", "content": pair.prompt}],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }
