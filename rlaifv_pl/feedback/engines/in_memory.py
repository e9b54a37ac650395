"""A model that is in memory already, asked in this process."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from transformers import BatchFeature

from rlaifv_pl.console import stderr
from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.collate import not_rendered
from rlaifv_pl.data.images import open_image
from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.bad_prompts import show_faults
from rlaifv_pl.feedback.engines.engine import Completion, Form, Request, Sampling
from rlaifv_pl.feedback.engines.position_limit import check_prompt_lengths, warn_long_answers
from rlaifv_pl.feedback.engines.question_trees import ImageQuestions, fork, tree
from rlaifv_pl.feedback.engines.rendering import prompt_text, request_text
from rlaifv_pl.feedback.engines.seeded_sampling import SeededSampling
from rlaifv_pl.feedback.engines.shared_prefix import PLAIN, expand_cache, expand_cache_error
from rlaifv_pl.feedback.engines.word_tokens import word_tokens
from rlaifv_pl.feedback.prompt_templates import FILL
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.fingerprint import fingerprint
from rlaifv_pl.models.model_checks import max_positions
from rlaifv_pl.models.policy import VisionLanguageModel, unwrap_model
from rlaifv_pl.models.self_check import tree_error
from rlaifv_pl.models.tokenization import ImagesRefused
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Sample
from rlaifv_pl.seeds import derive


@dataclass(eq=False)
class InMemoryEngine:
    """A model that is in memory already, such as the policy in training.

    Of its `generation_config` only the tokens that end an answer, or must not be drawn, count.

    Args:
        model: to ask; its mode and its weights are left as they are.
        chat: of its processor.
        batch_size: rows at a time.
        fill_tokens: longest filled-in form.
        fill_tries: drafts of a form; the first is greedy.
        context: entered around every forward, for instance a trainer's precision.
        shares_prefix: read an image once for all that is asked about it, if the model bears it.
    """

    model: VLM
    chat: Chat
    batch_size: int = 16
    fill_tokens: int = 1024
    fill_tries: int = 3
    context: Callable[[], AbstractContextManager] = nullcontext
    shares_prefix: bool = True

    def __post_init__(self) -> None:
        self._tokens: dict[tuple[str, ...], list[list[int]]] = {}
        self._faithful: dict[str, bool] = {}
        self._is_warned = False

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
    ) -> list[list[Completion]]:
        """As `Engine.sample`, `sampling.n` for each; a row is drawn with its own seed, whoever shares its batch.

        Raises:
            BadSample: one of the prompts cannot be rendered or is longer than the model's positions; the images of a
                sample cannot be opened, or its processor refuses them.
        """
        for sample in samples:  # Before work on any, since one that cannot be asked ends the call.
            self._check_prompt(self._asked_prompt(sample))
        at_once = max(1, self.batch_size // sampling.n)
        groups = _batches(list(zip(samples, seeds, strict=True)), at_once)
        return [drawn for group in groups for drawn in self._drawn(group, sampling)]

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        """As `Engine.choose`, from the first token's distribution; an image is read once for its requests.

        Raises:
            BadSample: naming what a request is about: it cannot be rendered, is longer than the model's positions, or
                its images cannot be read.
            ValueError: two of the words begin with the same token of this model.
        """
        tokens = self._word_tokens(tuple(words))
        return [row for batch in self._about_images(requests) for row in self._first(batch, tokens)]

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """As `Engine.fill`: the greedy draft, then drawn ones until one holds."""
        schema = json.dumps(form.model_json_schema())
        return [self._fill(request, form, schema) for request in requests]

    def release(self) -> None:
        """Nothing: the model is somebody else's."""

    def _fill(self, request: Request, form: type[Form], schema: str) -> Form | None:
        asked = Sample(
            key="form",
            prompt=FILL.format(text=self.chat.texts.plain(request.text), schema=schema),
            images=request.images,
        )
        last = None
        for draft in range(self.fill_tries):
            sampling = Sampling(n=1, temperature=0.7 * (draft > 0), max_new_tokens=self.fill_tokens)
            seed = derive("fill", request.text, request.seed + draft)
            try:
                ((drawn,),) = self.sample([asked], [[seed]], sampling)
            except BadSample as fault:
                show_faults([BadSample(fault.reason, request.where, fault.detail)])
                return None
            text = drawn.text
            with suppress(ValidationError):
                last = form.model_validate_json(text[text.find("{") : text.rfind("}") + 1])
                if request.accepts(last):
                    break
        return last

    def _drawn(
        self, group: Sequence[tuple[Sample, Sequence[int]]], sampling: Sampling
    ) -> list[list[Completion]]:
        """More candidates than a batch holds come in several batches of one prompt."""
        found: list[list[Completion]] = [[] for _ in group]
        for first in range(0, sampling.n, self.batch_size):
            some = [(sample, seeds[first : first + self.batch_size]) for sample, seeds in group]
            for own, more in zip(found, self._draw(some, sampling), strict=True):
                own += more
        return found

    @torch.inference_mode()
    def _draw(
        self, group: Sequence[tuple[Sample, Sequence[int]]], sampling: Sampling
    ) -> list[list[Completion]]:
        samples, seeds = zip(*group, strict=True)
        prompts = [self._asked_prompt(sample) for sample in samples]
        texts, images = [one.texts[0] for one in prompts], [one.images for one in prompts]
        with self._asked() as model:
            inputs = self.chat.prompt_tensors(texts, images).to(model.device)
            out = model.generate(
                **self._copied(model, inputs, len(seeds[0])),
                **_how(sampling, [seed for own in seeds for seed in own]),
                # An image token in an answer would have no image when the answer is scored.
                suppress_tokens=sorted(
                    {
                        *(model.generation_config.suppress_tokens or ()),
                        *self.chat.processor.image_token_ids,
                    }
                ),
            )
        answers = out[:, inputs["input_ids"].shape[1] :]
        if not self._is_warned:
            is_token = answers != model.generation_config.pad_token_id
            names = [one.where for one in prompts]
            self._is_warned = warn_long_answers(model.config, inputs["attention_mask"], is_token, names)
        ended = ends_with(answers, model.generation_config.eos_token_id)
        texts = self.chat.tokenizer.batch_decode(answers, skip_special_tokens=True)
        drawn = [Completion(text.strip(), end) for text, end in zip(texts, ended, strict=True)]
        n = len(seeds[0])
        return [drawn[first : first + n] for first in range(0, len(drawn), n)]

    def _asked_prompt(self, sample: Sample) -> ImageQuestions:
        return ImageQuestions(_open(sample), [prompt_text(self.chat, sample)], f"sample {sample.key}")

    def _check_prompt(self, asked: ImageQuestions) -> None:
        """Raise BadSample if the processor refuses the images, or the first text is too long with them."""
        try:
            inputs = self.chat.prompt_tensors(asked.texts[:1], [asked.images])
        except ImagesRefused as error:
            raise not_rendered(error, asked.where) from error
        check_prompt_lengths(self._positions, [inputs["input_ids"].shape[1]], [asked.where])

    @property
    def _positions(self) -> int | None:
        return max_positions(unwrap_model(self.model.model).config)

    def _copied(self, model: VisionLanguageModel, inputs: BatchFeature, n: int) -> Mapping[str, Any]:
        """What n candidates of each prompt are generated from."""
        if n == 1:
            return inputs
        if self._bears("candidates", lambda: expand_cache_error(model, inputs)):
            return expand_cache(model, inputs, n)
        return {**inputs, "num_return_sequences": n}

    @torch.inference_mode()
    def _first(self, batch: Sequence[ImageQuestions], words: Sequence[list[int]]) -> list[list[float]]:
        """Probability of each word, as the sum over its tokens, behind each text of a batch."""
        tokens = [token for ids in words for token in ids]
        forks = [parted for asked in batch for parted in fork(self.chat, asked)]
        with self._asked() as model:
            try:
                asked = tree(self.chat, forks, tokens)
            except ImagesRefused:
                for one in batch:
                    self._check_prompt(one)
                raise
            lengths = asked.tokens.rows["attention_mask"].sum(1).tolist()
            check_prompt_lengths(
                self._positions, lengths, [one.where for one in forks] * asked.layout.rows_per_tree
            )
            asked = move_data_to_device(asked, model.device)
            if not self._bears("questions", lambda: tree_error(self.model, asked)):
                asked = asked.as_rows()
            shares = self.model(asked).exp().view(-1, len(tokens))
        return torch.stack(
            [part.sum(-1) for part in shares.split([len(ids) for ids in words], 1)], 1
        ).tolist()

    def _bears(self, use: str, error: Callable[[], tuple[float, float]]) -> bool:
        """Whether the model shares a prefix faithfully: seen once, on the first that it is asked."""
        if use not in self._faithful:
            off, limit = error() if self.shares_prefix else (math.inf, 0.0)
            self._faithful[use] = off <= limit
            if self.shares_prefix and not self._faithful[use]:
                stderr.print(
                    f"This model cannot share what it has read of an image among {use}: it would be off by {off:.2g}, "
                    f"more than {limit:g}. It reads the image again for each."
                )
        return self._faithful[use]

    def _about_images(self, requests: Sequence[Request]) -> Iterator[list[ImageQuestions]]:
        """Consecutive requests about the same images together, `batch_size` requests at a time."""
        batch: list[ImageQuestions] = []
        for _, group in groupby(requests, key=lambda request: request.images):
            for some in _batches(list(group), self.batch_size):
                texts = [request_text(self.chat, one) for one in some]
                if sum(len(one.texts) for one in batch) + len(texts) > self.batch_size:
                    yield batch
                    batch = []
                batch.append(ImageQuestions(_open(some[0]), texts, some[0].where))
        if batch:
            yield batch

    @contextmanager
    def _asked(self) -> Iterator[VisionLanguageModel]:
        """The model without dropout; as it was afterwards."""
        training = self.model.training
        self.model.eval()
        try:
            with self.context():
                yield unwrap_model(self.model.model)
        finally:
            self.model.train(training)

    def _word_tokens(self, words: tuple[str, ...]) -> list[list[int]]:
        if words not in self._tokens:
            self._tokens[words] = word_tokens(self.chat, words)
        return self._tokens[words]


def _open(about: Sample | Request) -> list[Image.Image]:
    where = f"sample {about.key}" if isinstance(about, Sample) else about.where
    return [open_image(data, where) for data in about.images]


def ends_with(answers: Tensor, ends: int | list[int] | None) -> list[bool]:
    """Whether each row of generated tokens has one of those that end an answer.

    Args:
        answers: (R, T) tokens behind the prompts.
        ends: as a model's `generation_config` has them.
    """
    tokens = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    return (
        torch.isin(answers, torch.tensor(tokens, dtype=answers.dtype, device=answers.device)).any(1).tolist()
    )


def _how(sampling: Sampling, seeds: Sequence[int]) -> dict[str, Any]:
    # Processes ask for as many texts as each likes: none waits for another's.
    limit = {"max_new_tokens": sampling.max_new_tokens, "synced_gpus": False, **PLAIN}
    if sampling.temperature == 0:
        return {**limit, "do_sample": False}
    draw = SeededSampling(seeds, sampling.temperature)
    return {**limit, "do_sample": True, "top_k": 0, "top_p": 1.0, "logits_processor": [draw]}


def _batches(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))
