"""A model on disk, loaded into this process when it is first asked."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.engine import Form, Request, Sampling
from rlaifv_pl.feedback.engines.live import LiveEngine
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.identity import directory_fingerprint
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Sample


@dataclass(kw_only=True)
class TransformersEngine:
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

    @property
    def identity(self) -> str:
        """Hash of the model's directory, or its hub name, and of what else decides its answers."""
        template = self.chat_template and Path(self.chat_template).read_text()
        return hash_json([directory_fingerprint(self.path), self.revision, self.dtype, template])

    def sample(
        self, samples: Sequence[Sample], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[str]]:
        """As `Engine.sample`."""
        return self._live.sample(samples, seeds, sampling)

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        """As `Engine.choose`."""
        return self._live.choose(requests, words)

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """As `Engine.fill`."""
        return self._live.fill(requests, form)

    @property
    def live(self) -> LiveEngine:
        """The model in memory; it is loaded if it is not there."""
        return self._live

    def release(self) -> None:
        """Drop the weights; they are loaded again when needed."""
        self.__dict__.pop("_live", None)

    @cached_property
    def _live(self) -> LiveEngine:
        spec = PolicySpec(
            path=self.path,
            revision=self.revision,
            dtype=self.dtype,
            attention=self.attention,
            chat_template=self.chat_template,
            trust_remote_code=self.trust_remote_code,
        )
        device = self.device or own_device()
        model = VLM(load_model(spec), spec.attention).requires_grad_(False).eval().to(device)
        return LiveEngine(
            model, Chat(load_processor(spec)), self.batch_size, self.fill_tokens, self.fill_tries
        )


def own_device() -> str:
    """This process's GPU, or the CPU where there is none."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
