"""A model in this process."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from rlaifv_pl.data.images import open_image
from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.engine import Form, Request, Sampling
from rlaifv_pl.feedback.engines.draw import SeededDraw
from rlaifv_pl.feedback.engines.words import word_tokens
from rlaifv_pl.feedback.prompts import FILL
from rlaifv_pl.models.chat import Chat, about_images, prompt_messages
from rlaifv_pl.models.identity import directory_fingerprint, fingerprint
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor, plain_model
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Message, Sample
from rlaifv_pl.seeds import derive


class LiveEngine:
    """A model that is in memory already, such as the policy in training.

    Args:
        model: to ask; its mode and its weights are left as they are.
        chat: of its processor.
        batch_size: rows at a time.
        fill_tokens: longest filled-in form.
        fill_tries: drafts of a form; the first is greedy.
        context: entered around every forward, for instance a trainer's precision.
    """

    def __init__(
        self,
        model: VLM,
        chat: Chat,
        batch_size: int = 16,
        fill_tokens: int = 1024,
        fill_tries: int = 3,
        context: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.model, self.chat, self.batch_size = model, chat, batch_size
        self.fill_tokens, self.fill_tries, self.context = fill_tokens, fill_tries, context
        self._tokens: dict[tuple[str, ...], list[list[int]]] = {}

    @property
    def identity(self) -> str:
        """Hash of the weights as they are now, the chat template and the image processing."""
        processor = self.chat.processor
        images = processor.image_processor.to_dict()
        return hash_json(
            [fingerprint(self.model, adapters=True), processor.chat_template, json.dumps(images, default=str)]
        )

    def sample(
        self, samples: Sequence[Sample], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[str]]:
        """As `Engine.sample`, `sampling.n` for each; a row is drawn with its own seed, whoever shares its batch."""
        at_once = max(1, self.batch_size // sampling.n)
        groups = _batches(list(zip(samples, seeds, strict=True)), at_once)
        return [texts for group in groups for texts in self._drawn(group, sampling)]

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        """As `Engine.choose`, from the first token's distribution.

        Raises:
            ValueError: two of the words begin with the same token of this model.
        """
        tokens = self._word_tokens(tuple(words))
        return [row for batch in _batches(requests, self.batch_size) for row in self._first(batch, tokens)]

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """As `Engine.fill`: the greedy draft, then drawn ones until one holds."""
        schema = json.dumps(form.model_json_schema())
        return [self._fill(request, form, schema) for request in requests]

    def release(self) -> None:
        """Nothing: the model is somebody else's."""

    def _fill(self, request: Request, form: type[Form], schema: str) -> Form | None:
        asked = Sample(
            key="form", prompt=FILL.format(text=request.text, schema=schema), images=request.images
        )
        for draft in range(self.fill_tries):
            sampling = Sampling(n=1, temperature=0.7 * (draft > 0), max_new_tokens=self.fill_tokens)
            ((text,),) = self.sample([asked], [[derive("fill", request.text, draft)]], sampling)
            try:
                return form.model_validate_json(text[text.find("{") : text.rfind("}") + 1])
            except ValidationError:
                continue
        return None

    def _drawn(self, group: Sequence[tuple[Sample, Sequence[int]]], sampling: Sampling) -> list[list[str]]:
        """More candidates than a batch holds come in several batches of one prompt."""
        found: list[list[str]] = [[] for _ in group]
        for first in range(0, sampling.n, self.batch_size):
            some = [(sample, seeds[first : first + self.batch_size]) for sample, seeds in group]
            for texts, more in zip(found, self._draw(some, sampling), strict=True):
                texts += more
        return found

    @torch.inference_mode()
    def _draw(self, group: Sequence[tuple[Sample, Sequence[int]]], sampling: Sampling) -> list[list[str]]:
        samples, seeds = zip(*group, strict=True)
        n = len(seeds[0])
        inputs = self._inputs(samples, [prompt_messages(sample) for sample in samples])
        with self._asked() as model:
            out = model.generate(
                **inputs,
                **_how(sampling, [seed for own in seeds for seed in own], n),
                # An image token in an answer would have no image when the answer is scored.
                suppress_tokens=sorted(
                    {
                        *(model.generation_config.suppress_tokens or ()),
                        *self.chat.processor.image_token_ids,
                    }
                ),
            )
        answers = out[:, inputs["input_ids"].shape[1] :]
        texts = [text.strip() for text in self.chat.tokenizer.batch_decode(answers, skip_special_tokens=True)]
        return [texts[first : first + n] for first in range(0, len(texts), n)]

    @torch.inference_mode()
    def _first(self, requests: Sequence[Request], tokens: Sequence[list[int]]) -> list[list[float]]:
        samples = [
            Sample(key=request.where, prompt=request.text, images=request.images) for request in requests
        ]
        messages = [[about_images(request.text, len(request.images))] for request in requests]
        inputs = self._inputs(samples, messages)
        with self._asked() as model:
            share = model(**inputs, logits_to_keep=1).logits[:, -1].float().softmax(-1)
        return torch.stack([share[:, ids].sum(-1) for ids in tokens], dim=1).tolist()

    def _inputs(self, samples: Sequence[Sample], messages: Sequence[Sequence[Message]]) -> Any:
        texts = [self.chat.render(turns, ask=True) for turns in messages]
        images = [[open_image(data, f"sample {sample.key}") for data in sample.images] for sample in samples]
        return self.chat.prompt_tensors(texts, images).to(plain_model(self.model.model).device)

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        """The model without dropout; as it was afterwards."""
        training = self.model.training
        self.model.eval()
        try:
            with self.context():
                yield plain_model(self.model.model)
        finally:
            self.model.train(training)

    def _word_tokens(self, words: tuple[str, ...]) -> list[list[int]]:
        if words not in self._tokens:
            self._tokens[words] = word_tokens(self.chat, words)
        return self._tokens[words]


@dataclass(kw_only=True)
class TransformersEngine:
    """A vision-language model on disk, loaded when it is first asked.

    Args:
        path: local directory or hub name.
        revision: of a hub model.
        dtype: of the weights.
        attention: attention implementation of transformers.
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
    attention: str = "sdpa"
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
        own = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        model = VLM(load_model(spec)).requires_grad_(False).eval().to(self.device or own)
        return LiveEngine(
            model, Chat(load_processor(spec)), self.batch_size, self.fill_tokens, self.fill_tries
        )


def _how(sampling: Sampling, seeds: Sequence[int], n: int) -> dict[str, Any]:
    limit = {"max_new_tokens": sampling.max_new_tokens}
    if sampling.temperature == 0:
        return {**limit, "do_sample": False}
    draw = SeededDraw(seeds, sampling.temperature)
    return {**limit, "do_sample": True, "num_return_sequences": n, "top_k": 0, "top_p": 1.0,
            "logits_processor": [draw]}  # fmt: skip


def _batches(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))
