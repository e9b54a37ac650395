"""Models and processors from a directory or the hub, checked as they are loaded."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from rlaifv_pl.models.checkpoint_files import is_local, require_weights, validate_files
from rlaifv_pl.models.errors import PolicyError, cannot_load
from rlaifv_pl.models.hub_access import hub_options
from rlaifv_pl.models.model_checks import (
    check_config,
    check_image_tokens,
    check_processor,
    check_trainable,
    check_weights,
    complete_processor,
)
from rlaifv_pl.models.spec import PolicySpec
from rlaifv_pl.models.tokenization import Processor

DEFAULT_ATTENTION = ("auto", "split", "dense", "flex", "flash", "rows")
"""Values of `PolicySpec.attention` with which each part keeps transformers' default: SDPA where it has one."""
LOADING_INFO = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Options with which `from_pretrained` returns which weights are missing, instead of initialising them silently."""


def load_processor(spec: PolicySpec) -> Processor:
    """Load the model's processor, with `spec.chat_template` in place of its own if given.

    Raises:
        PolicyError: it is incomplete, or does not agree with the model's config.
    """
    config = load_config(spec)
    processor: Processor = from_pretrained(AutoProcessor.from_pretrained, spec)
    if spec.chat_template:
        try:
            processor.chat_template = Path(spec.chat_template).read_text()
        except OSError as error:
            raise PolicyError(f"policy.chat_template: expected a Jinja file, but {error}.") from error
    complete_processor(processor, config)
    check_processor(spec.path, processor, config)
    return processor


def load_config(spec: PolicySpec) -> PreTrainedConfig:
    """Load the model's config.

    Raises:
        PolicyError: it cannot be read, or is not of a vision-language model.
    """
    config = from_pretrained(AutoConfig.from_pretrained, spec)
    check_config(spec.path, config, trust_remote_code=spec.trust_remote_code)
    return config


def read_model(spec: PolicySpec, *, empty: bool = False) -> PreTrainedModel:
    """Load the whole model of transformers.

    Args:
        spec: what to load.
        empty: skip the weights; the model is on the `meta` device then.

    Raises:
        PolicyError: the model cannot be found or read, or a part of its weights is missing.
    """
    config = load_config(spec)
    options = {"dtype": getattr(torch, spec.dtype), "attn_implementation": _attention(config, spec.attention)}
    model = from_pretrained(_skeleton, spec, **options) if empty else load_weights(spec, **options)
    _complete_generation(model, spec)
    return model


def load_weights(spec: PolicySpec, **options: Any) -> PreTrainedModel:
    """Return the model with its weights, all of which are there.

    Args:
        spec: what to load.
        options: of transformers' `from_pretrained`.

    Raises:
        PolicyError: the model cannot be found or read, or a part of its weights is missing.
    """
    if is_local(spec.path):
        require_weights(spec.path)
    load = AutoModelForImageTextToText.from_pretrained
    model, info = from_pretrained(load, spec, **LOADING_INFO, **options)
    check_weights(spec.path, info)
    return model


def validate_checkpoint(
    spec: PolicySpec, processor: Processor | None = None, *, trains: bool = False
) -> bool:
    """Check that a model is complete, and that its files, config, tokenizer and processor agree.

    Args:
        spec: which model.
        processor: that goes with it, if it is loaded already.
        trains: whether its weights, or adapters on them, are to be trained.

    Returns:
        whether image tokens could be compared with features; not every model runs without its weights.

    Raises:
        PolicyError: a fault; the message names directory, file or parameter, and cure.
    """
    processor = processor or load_processor(spec)
    if trains:
        check_trainable(spec.path, load_config(spec))
    model = load_weights(spec, device_map="meta")
    return check_image_tokens(spec.path, model, processor)


def find_checkpoint(spec: PolicySpec) -> dict[str, Any]:
    """Return options with which transformers finds a model, in its directory or by its hub name.

    Raises:
        PolicyError: there is no such model, or its directory is incomplete.
    """
    if is_local(spec.path):
        validate_files(spec.path)
        return {"revision": "main"}
    return {"revision": spec.revision or "main", **hub_options(spec.path, spec.revision)}


def from_pretrained(load: Callable[..., Any], spec: PolicySpec, **options: Any) -> Any:
    """Call a `from_pretrained` of transformers on a model whose files were checked.

    Raises:
        PolicyError: the model cannot be found or read.
    """
    where = find_checkpoint(spec)
    try:
        return load(spec.path, trust_remote_code=spec.trust_remote_code, **where, **options)
    except UnpicklingError as error:
        raise cannot_load(
            spec.path,
            "its weights are a pickle with more than tensors in it, of which nothing was run",
            "Take a copy with safetensors.",
        ) from error
    except Exception as error:  # Libraries raise anything on files that they cannot read.
        message = next(iter(str(error).strip().splitlines()), "").rstrip(".")
        raise cannot_load(
            spec.path,
            f"transformers ends with {type(error).__name__}: {message}",
            "Expected a directory with the files that save_pretrained writes for a model and its processor, or a hub "
            "name that can be reached from here.",
        ) from error


def _attention(config: PreTrainedConfig, attention: str) -> str | dict[str, str] | None:
    """Return `attn_implementation`: the configured one for the language model, and each other part's default.

    A convolutional tower, for instance, has no SDPA, and transformers would refuse the whole model.
    """
    if attention in DEFAULT_ATTENTION:
        return None
    text = config.get_text_config()
    parts = [name for name in config.sub_configs if getattr(config, name, None) is text]
    return {parts[0]: attention} if parts else attention


def _complete_generation(model: PreTrainedModel, spec: PolicySpec) -> None:
    """Take the end token of generation from the tokenizer where the model's config lacks it."""
    generation, text = model.generation_config, model.config.get_text_config()
    if generation.eos_token_id is None:
        end = text.eos_token_id
        generation.eos_token_id = (
            from_pretrained(AutoTokenizer.from_pretrained, spec).eos_token_id if end is None else end
        )
    if generation.pad_token_id is None:
        ends = generation.eos_token_id
        generation.pad_token_id = text.pad_token_id or (ends[0] if isinstance(ends, list) else ends)


def _skeleton(path: str, revision: str, trust_remote_code: bool, **options: Any) -> PreTrainedModel:
    """Build the model without weights, with the signature of `from_pretrained`."""
    where = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(path, **where)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(
            config, trust_remote_code=trust_remote_code, **options
        )
    with suppress(OSError):  # Without the file, the config's values hold.
        model.generation_config = GenerationConfig.from_pretrained(path, revision=revision)
    return model.eval()
