"""Checks that other programs can load a directory: its files, and the names of its weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from rlaifv_pl.export.vllm_names import SERVED, of_adapter, of_weights
from rlaifv_pl.models.checkpoint_files import (
    ADAPTER_WEIGHTS,
    CONFIG,
    INDEX,
    WEIGHTS,
    weight_files,
)

NEEDED = {
    (CONFIG,): "the model's config",
    (WEIGHTS, INDEX): "its weights",
    ("generation_config.json",): "what ends an answer",
    ("tokenizer.json",): "the tokenizer",
    ("tokenizer_config.json",): "the tokenizer's settings",
    ("processor_config.json", "preprocessor_config.json"): "how images are prepared",
    ("chat_template.jinja", "chat_template.json"): "the chat template",
}
"""Files, of which one of each row must be there, and what is in them."""


def missing_files(directory: Path) -> list[str]:
    """Return what this model directory lacks; empty if it can be loaded by itself."""
    problems = [
        f"{' or '.join(names)} is missing ({what})"
        for names, what in NEEDED.items()
        if not any((directory / name).is_file() for name in names)
    ]
    problems += [
        f"{path.name} is missing, though {INDEX} lists it"
        for path in weight_files(directory)
        if not path.is_file()
    ]
    if (directory / CONFIG).is_file() and not _json(directory / CONFIG).get("architectures"):
        problems.append(f"{CONFIG} names no architecture")
    return problems


def unserved(directory: Path) -> list[str]:
    """Return why vLLM would not load a complete model directory, or not all of it; empty if it would."""
    config = _json(directory / CONFIG)
    (architecture, *_) = config["architectures"]
    if architecture not in SERVED:
        return [_unknown(architecture)]
    names = [name for path in weight_files(directory) for name in _names(path)]
    lost = of_weights(names, SERVED[architecture], config)
    return [_lost(lost, architecture)] if lost else []


def unserved_adapter(directory: Path, architecture: str, layers: int) -> list[str]:
    """Return why vLLM would not apply an adapter, or not all of it.

    Args:
        directory: of the adapter.
        architecture: of its base.
        layers: of the base's language model.
    """
    if architecture not in SERVED:
        return [_unknown(architecture)]
    lost = of_adapter(_names(directory / ADAPTER_WEIGHTS), SERVED[architecture], layers)
    return [_lost(lost, architecture)] if lost else []


def _unknown(architecture: str) -> str:
    return f"it is not known here by which names vLLM would look for weights of {architecture}"


def _lost(names: Iterable[str], architecture: str) -> str:
    found = sorted(names)
    return f"vLLM has no place in {architecture} for {found[0]!r} ({len(found)} such names)"


def _names(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())
