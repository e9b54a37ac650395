"""The little of vLLM that the engine uses, answered by a tiny model on the CPU.

Names and parameters are vLLM's, and no others: a call that it would refuse is a TypeError here. Prompts hold one
token for each image, which is spread out here as vLLM does, and each request is computed by itself.
"""

import os
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor


@dataclass
class StructuredOutputsParams:
    json: str | dict | None = None


@dataclass
class SamplingParams:
    temperature: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    logprob_token_ids: list[int] | None = None
    detokenize: bool = True
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None


@dataclass(kw_only=True)
class LLM:
    model: str
    trust_remote_code: bool
    tensor_parallel_size: int
    dtype: str
    revision: str | None
    tokenizer_revision: str | None
    gpu_memory_utilization: float
    max_model_len: int | None
    limit_mm_per_prompt: dict[str, int]
    enable_prefix_caching: bool
    distributed_executor_backend: str | None = None
    max_num_seqs: int | None = None
    forms: list[str] = field(default_factory=list, init=False)
    """What is answered, one after the other, where an answer is held to a schema."""
    asked: list[tuple[dict, SamplingParams]] = field(default_factory=list, init=False)
    ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.environment = dict(os.environ)
        self.processor = AutoProcessor.from_pretrained(self.model)
        self.weights = AutoModelForImageTextToText.from_pretrained(
            self.model, dtype=getattr(torch, self.dtype)
        )
        self.weights.eval()
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._shut_down))
        made.append(self)

    def generate(
        self, prompts: list[dict], sampling_params: list[SamplingParams], *, use_tqdm: bool = True
    ) -> list[Any]:
        assert not self.ended and len(prompts) == len(sampling_params)
        self.asked += zip(prompts, sampling_params, strict=True)
        for prompt in prompts:
            if len(prompt.get("multi_modal_data", {}).get("image", [])) > self.limit_mm_per_prompt["image"]:
                raise ValueError("At most 1 image(s) may be provided in one prompt.")
        return [
            SimpleNamespace(outputs=[self._answer(*each)])
            for each in zip(prompts, sampling_params, strict=True)
        ]

    @torch.inference_mode()
    def _answer(self, prompt: dict, params: SamplingParams) -> Any:
        if params.structured_outputs is not None:
            return SimpleNamespace(text=self.forms.pop(0), logprobs=None, finish_reason="stop")
        inputs = self._spread(prompt)
        ids, said, first = inputs.pop("input_ids"), [], None
        noise = torch.Generator().manual_seed(params.seed or 0)
        ends = self.weights.generation_config.eos_token_id
        while len(said) < params.max_tokens and (not said or said[-1] != ends):
            row = torch.cat([ids, torch.tensor([said], dtype=torch.long)], 1)
            logits = (
                self.weights(input_ids=row, attention_mask=torch.ones_like(row), **inputs)
                .logits[0, -1]
                .float()
            )
            first = logits.log_softmax(-1) if first is None else first
            for token, bias in (params.logit_bias or {}).items():
                logits[token] += bias
            if params.temperature == 0:
                said.append(int(logits.argmax()))
            else:
                said.append(int((logits / params.temperature).softmax(-1).multinomial(1, generator=noise)))
        text = self.processor.tokenizer.decode(said, skip_special_tokens=True) if params.detokenize else ""
        wanted = params.logprob_token_ids
        place = {token: SimpleNamespace(logprob=first[token].item()) for token in {*(wanted or []), said[0]}}
        reason = "stop" if said[-1] == ends else "length"
        return SimpleNamespace(text=text, logprobs=[place] if wanted else None, finish_reason=reason)

    def _spread(self, prompt: dict) -> dict[str, torch.Tensor]:
        """Each image's one token becomes as many as the model's processor makes of it; pixels as it makes them."""
        images, mark = prompt.get("multi_modal_data", {}).get("image", []), self.processor.image_token_ids[0]
        assert prompt["prompt_token_ids"].count(mark) == len(images)
        ids, pixels, rest = [], {}, iter(images)
        for token in prompt["prompt_token_ids"]:
            if token != mark:
                ids.append(token)
                continue
            out = self.processor(text=self.processor.image_token, images=next(rest), return_tensors="pt")
            ids += [mark] * int((out.pop("input_ids") == mark).sum())
            out.pop("attention_mask")
            for name, value in out.items():
                pixels[name] = torch.cat([pixels[name], value]) if name in pixels else value
        return {"input_ids": torch.tensor([ids]), **pixels}

    def _shut_down(self) -> None:
        self.ended = True


made: list[LLM] = []
"""In order."""


def modules() -> dict[str, ModuleType]:
    """What stands for vLLM among the imported modules."""
    vllm, params = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    params.SamplingParams, params.StructuredOutputsParams = SamplingParams, StructuredOutputsParams
    vllm.LLM, vllm.SamplingParams, vllm.sampling_params = LLM, SamplingParams, params
    return {"vllm": vllm, "vllm.sampling_params": params}
