"""A model on disk that vLLM runs in this process: many requests in flight, an image read once for all about it."""

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import ValidationError

from rlaifv_pl.data.images import open_image
from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.engines.engine import Completion, EngineError, Form, Request, Sampling
from rlaifv_pl.feedback.engines.isolated_env import isolated_environment
from rlaifv_pl.feedback.engines.rendering import prompt_text, request_text
from rlaifv_pl.feedback.engines.requests import AGAIN_TEMPERATURE, with_schema
from rlaifv_pl.feedback.engines.word_tokens import word_tokens
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.fingerprint import directory_fingerprint
from rlaifv_pl.models.policy import PolicySpec, load_processor
from rlaifv_pl.records import Sample
from rlaifv_pl.seeds import derive

QUIET = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
FORBIDDEN = -100.0
"""Added to the logit of a token that must not be drawn; the least that vLLM takes."""


@dataclass(kw_only=True)
class VLLMEngine:
    """A vision-language model on disk, run by vLLM and loaded when it is first asked.

    The chat template and the tokens of a prompt are those of `TransformersEngine`, and a candidate's noise is of its
    own seed, whoever shares its batch. The logits' last digits are not, unless VLLM_BATCH_INVARIANT=1 is in the
    environment (vLLM has it for some GPUs): where two tokens are as good as equal, a candidate may then go on
    differently when a run is cut in other parts. Of the model's `generation_config` only the tokens that end an
    answer count.

    Args:
        path: local directory or hub name.
        revision: of a hub model.
        dtype: of the weights.
        chat_template: path to a Jinja file, for a checkpoint that has none.
        trust_remote_code: run code that comes with the checkpoint.
        tensor_parallel_size: GPUs that share the weights. With a launcher, process n takes the n-th such group.
        gpu_memory_utilization: share of each GPU's memory that vLLM may take.
        max_model_len: longest prompt with its answer, in tokens; the model's own unless given.
        images_per_prompt: at most; memory is set aside for so many.
        fill_tokens: longest filled-in form.
        fill_tries: drafts of a form; the first is greedy.
        options: more arguments of `vllm.LLM`, such as `max_num_seqs` or `quantization`.
    """

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    chat_template: str | None = None
    trust_remote_code: bool = False
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    images_per_prompt: int = 1
    fill_tokens: int = 1024
    fill_tries: int = 3
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.tensor_parallel_size, self.images_per_prompt, self.fill_tries) < 1:
            raise ValueError(
                "tensor_parallel_size, images_per_prompt and fill_tries must be at least 1; got "
                f"{self.tensor_parallel_size}, {self.images_per_prompt} and {self.fill_tries}."
            )

    @property
    def identity(self) -> str:
        """Hash of the model's directory, or its hub name, and of what else decides its answers."""
        # Loaded now, though it is needed later: what cannot be used is said before anything is generated.
        chat = self._chat
        template = self.chat_template and chat.processor.chat_template
        model = [directory_fingerprint(self.path), self.revision, self.dtype, template]
        return hash_json(["vllm", *model, self.fill_tokens, self.fill_tries, self.options])

    def sample(
        self, samples: Sequence[Sample], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """As `Engine.sample`; each candidate is a request with its own seed.

        Raises:
            BadSample: one of the prompts cannot be rendered.
            EngineError: vLLM is not installed, or does not take a prompt.
        """
        how = {"temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens}
        prompts = [
            self._prompt(prompt_text(self._chat, one), one.images, f"sample {one.key}") for one in samples
        ]
        asked = [
            (prompt, {**how, "seed": seed})
            for prompt, own in zip(prompts, seeds, strict=True)
            for seed in own
        ]
        drawn = iter(self._written(asked))
        return [[next(drawn) for _ in own] for own in seeds]

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        """As `Engine.choose`, from the first token's distribution before any temperature.

        Raises:
            EngineError: vLLM is not installed, or does not take a prompt.
            ValueError: two of the words begin with the same token of this model.
        """
        tokens = word_tokens(self._chat, words)
        first = {
            "temperature": 0.0,
            "max_tokens": 1,
            "logprob_token_ids": [token for ids in tokens for token in ids],
            "detokenize": False,
        }
        answers = self._generate([(self._question(one), first) for one in requests])
        places = [answer.logprobs[0] for answer in answers]
        return [[sum(math.exp(place[token].logprob) for token in ids) for ids in tokens] for place in places]

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """As `Engine.fill`: vLLM holds the model to the form's schema; what was cut short is drawn again.

        Raises:
            EngineError: vLLM is not installed, or does not take a prompt.
        """
        found: dict[int, Form] = {}
        accepted: set[int] = set()
        for draft in range(self.fill_tries):
            missing = [number for number in range(len(requests)) if number not in accepted]
            asked = [
                (
                    self._question(with_schema(requests[number], form)),
                    self._drafted(requests[number], form, draft),
                )
                for number in missing
            ]
            for number, drawn in zip(missing, self._written(asked), strict=True):
                with suppress(ValidationError):
                    found[number] = form.model_validate_json(drawn.text)
                    if requests[number].accepts(found[number]):
                        accepted.add(number)
        return [found.get(number) for number in range(len(requests))]

    def release(self) -> None:
        """End vLLM's processes, which frees their GPUs; they are started again when needed."""
        if (llm := self.__dict__.pop("_llm", None)) is not None:
            llm.llm_engine.engine_core.shutdown()

    @cached_property
    def _chat(self) -> Chat:
        spec = PolicySpec(
            path=self.path,
            revision=self.revision,
            chat_template=self.chat_template,
            trust_remote_code=self.trust_remote_code,
        )
        return Chat(load_processor(spec))

    @cached_property
    def _llm(self) -> Any:
        llm = _vllm().LLM
        with isolated_environment(self.tensor_parallel_size):
            return llm(**self._arguments)

    @property
    def _arguments(self) -> dict[str, Any]:
        """What `vllm.LLM` is made with."""
        own = {
            "model": self.path,
            "revision": self.revision,
            "tokenizer_revision": self.revision,
            "dtype": self.dtype,
            "trust_remote_code": self.trust_remote_code,
            "tensor_parallel_size": self.tensor_parallel_size,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "max_model_len": self.max_model_len,
            "limit_mm_per_prompt": {"image": self.images_per_prompt},
            "enable_prefix_caching": True,
        }
        # Left to itself, vLLM would start an actor of Ray's for each GPU within one of ours.
        alone = {"distributed_executor_backend": "mp"} if self.tensor_parallel_size > 1 else {}
        return own | alone | self.options

    def _question(self, request: Request) -> dict[str, Any]:
        return self._prompt(request_text(self._chat, request), request.images, request.where)

    def _prompt(self, text: str, images: Sequence[bytes], where: str) -> dict[str, Any]:
        """What vLLM takes: one token for each image, where its own processor puts as many as the image has."""
        prompt: dict[str, Any] = {"prompt_token_ids": self._chat.prompt_ids(text)}
        if images:
            prompt["multi_modal_data"] = {"image": [open_image(data, where) for data in images]}
        return prompt

    def _drafted(self, request: Request, form: type[Form], draft: int) -> dict[str, Any]:
        held = _vllm().sampling_params.StructuredOutputsParams(json=form.model_json_schema())
        return {
            "temperature": AGAIN_TEMPERATURE * (draft > 0),
            "seed": derive("fill", request.text, request.seed + draft),
            "max_tokens": self.fill_tokens,
            "structured_outputs": held,
        }

    def _written(self, asked: Sequence[tuple[Mapping[str, Any], dict[str, Any]]]) -> list[Completion]:
        # An image token in an answer would have no image when the answer is scored.
        never = dict.fromkeys(self._chat.processor.image_token_ids, FORBIDDEN)
        answers = self._generate([(prompt, {**drawn, "logit_bias": never}) for prompt, drawn in asked])
        return [Completion(answer.text.strip(), answer.finish_reason == "stop") for answer in answers]

    def _generate(self, asked: Sequence[tuple[Mapping[str, Any], dict[str, Any]]]) -> list[Any]:
        """The one answer to each prompt under its parameters."""
        if not asked:
            return []
        params = [_vllm().SamplingParams(**drawn) for _, drawn in asked]
        try:
            outputs = self._llm.generate([prompt for prompt, _ in asked], params, use_tqdm=False)
        except ValueError as error:
            raise EngineError(
                f"vLLM does not take a prompt or a setting of {self.path}: {error} Raise `max_model_len` or "
                "`images_per_prompt`, shorten what is asked, or change `options`."
            ) from error
        return [output.outputs[0] for output in outputs]


def _vllm() -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        import vllm.sampling_params
    except ImportError as error:
        raise EngineError(
            f"VLLMEngine needs the vllm package, on Linux with a GPU ({error}). It insists on versions of torch and "
            "transformers of its own, so give feedback an environment for itself: install this package, then `pip "
            "install vllm`. Or leave this environment as it is and ask `vllm serve`, run in another, by OpenAIEngine."
        ) from error
    return vllm
