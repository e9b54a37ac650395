"""A model on disk, loaded into this process when it is first asked."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.engines.in_memory import InMemoryEngine
from rlaifv_pl.feedback.engines.lazy import LazyEngine
from rlaifv_pl.launcher import this_process
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.fingerprint import directory_fingerprint
from rlaifv_pl.models.model_checks import check_image_tokens
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor, unwrap_model
from rlaifv_pl.models.pretrained import validate_checkpoint
from rlaifv_pl.models.vlm import VLM


@dataclass(kw_only=True)
class TransformersEngine(LazyEngine):
    """A vision-language model on disk, loaded when it is first asked.

    Args:
        path: local directory or hub name.
        revision: of a hub model.
        dtype: of the weights.
        attention: as of a policy: `auto` reads an image once for all questions about it.
        chat_template: path to a Jinja file, for a checkpoint that has none.
        trust_remote_code: run code that comes with the checkpoint.
        device: such as cuda:1; this process's GPU, or the CPU where there is none, unless given.
        batch_size: rows at a time.
        fill_tokens: longest filled-in form.
        fill_tries: drafts of a form; the first is greedy.
    """

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: str = "auto"
    chat_template: str | None = None
    trust_remote_code: bool = False
    device: str | None = None
    batch_size: int = 16
    fill_tokens: int = 1024
    fill_tries: int = 3
    _is_compared: bool | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def identity(self) -> str:
        """Hash of the model's directory, or its hub name, and of what else decides its answers."""
        self._validate()
        template = self.chat_template and Path(self.chat_template).read_text()
        return hash_json([directory_fingerprint(self.path), self.revision, self.dtype, template])

    @cached_property
    def _spec(self) -> PolicySpec:
        return PolicySpec(
            path=self.path,
            revision=self.revision,
            dtype=self.dtype,
            attention=self.attention,
            chat_template=self.chat_template,
            trust_remote_code=self.trust_remote_code,
        )

    def _validate(self) -> None:
        """Check the model once, when it is first named: a labeler is needed only hours later."""
        if self._is_compared is None:
            self._is_compared = validate_checkpoint(self._spec)

    def load(self) -> InMemoryEngine:
        """The model and its processor, from disk or the hub.

        Raises:
            PolicyError: the model cannot be used.
        """
        self._validate()
        spec = self._spec
        device = self.device or own_device()
        model = VLM(load_model(spec), spec.attention).requires_grad_(False).eval().to(device)
        processor = load_processor(spec)
        if not self._is_compared:
            check_image_tokens(spec.path, unwrap_model(model.model), processor)
        return InMemoryEngine(model, Chat(processor), self.batch_size, self.fill_tokens, self.fill_tries)


def own_device() -> str:
    """This process's GPU, or the CPU where there is none. A launcher may show each process its own GPU alone."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{this_process().local_rank % torch.cuda.device_count()}"
