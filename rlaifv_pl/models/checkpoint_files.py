"""Check the files of a model directory before transformers opens them.

No weight is read and nothing is unpickled: JSON files are parsed, and of safetensors files only the headers are read.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rlaifv_pl.models.errors import cannot_load

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PROCESSOR = ("processor_config.json", "preprocessor_config.json")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
JSON_FILES = (
    *(CONFIG, "generation_config.json", "chat_template.json", "added_tokens.json", "special_tokens_map.json"),
    *(*PROCESSOR, "video_preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
)
"""JSON files that transformers reads of a model directory."""
LFS = b"version https://git-lfs.github.com/spec/"
MAX_PARSED_BYTES = 1 << 24
"""Size in bytes from which only the beginning of a JSON file is checked (a tokenizer's vocabulary)."""


def is_local(path: str) -> bool:
    """Return whether a path can only mean a directory of this machine, whether it exists or not."""
    parts = Path(path).parts
    is_in_known_folder = len(parts) == 2 and os.path.isdir(parts[0])
    return (
        os.path.lexists(path)
        or path.startswith((".", "~", os.sep))
        or "\\" in path
        or len(parts) > 2
        or is_in_known_folder
    )


def validate_files(path: str) -> None:
    """Check that a local directory holds a model's config and processor, and that weights in it are complete.

    Args:
        path: directory.

    Raises:
        PolicyError: a file is missing, truncated or of another kind than its name says.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise _no_directory(path)
    if not any(directory.iterdir()):
        raise cannot_load(path, "the directory is empty")
    if (directory / ADAPTER_CONFIG).is_file():
        raise _is_adapter(path)
    if not (directory / CONFIG).is_file():
        raise _no_config(path)
    for file in [directory / name for name in JSON_FILES if (directory / name).is_file()]:
        _check_json(path, file)
    _check_weights(path)
    for names, what in ((PROCESSOR, "prepares its images"), (TOKENIZER, "holds its tokenizer")):
        if not any((directory / name).is_file() for name in names):
            raise cannot_load(
                path,
                f"no file {what} ({' or '.join(names[:2])} is missing)",
                "Copy the processor's files from the model that it was made from, or save them there: "
                f"AutoProcessor.from_pretrained(BASE).save_pretrained({path!r}).",
            )


def require_weights(path: str) -> None:
    """Check that a local directory holds weights, in files that transformers would read.

    Raises:
        PolicyError: it holds none.
    """
    if not dict(_indexed_files(Path(path))):
        raise cannot_load(path, f"it holds no weights ({WEIGHTS} is missing)")


def weight_files(directory: Path) -> list[Path]:
    """Return the files of the weights, in the order of their names; of an adapter, its own."""
    if (directory / INDEX).is_file():
        return [directory / name for name in sorted(set(_weight_map(directory / INDEX).values()))]
    return [directory / name for name in (WEIGHTS, ADAPTER_WEIGHTS) if (directory / name).is_file()]


def _no_directory(path: str) -> Exception:
    if path.endswith(".ckpt"):
        return cannot_load(
            path, "it is a checkpoint of a run", "Write its model by `rlaifv export RUN OUT`, and name OUT."
        )
    if os.path.exists(path):
        return cannot_load(
            path, "it is a file, and a directory was expected", "Name the directory that holds it."
        )
    if os.path.isabs(path):
        return cannot_load(path, "there is no such directory", "Correct the path.")
    return cannot_load(
        path,
        f"there is no such directory in {os.getcwd()}, where a relative path begins",
        "Correct the path, write it from the root, or start the command in the folder that it was written for.",
    )


def _is_adapter(path: str) -> Exception:
    base = _read_json(Path(path) / ADAPTER_CONFIG).get("base_model_name_or_path")
    return cannot_load(
        path,
        f"it holds a PEFT adapter of {base!r}, not a model",
        "Name a merged model: of a run, `rlaifv export RUN OUT` without --adapter writes one; another adapter is "
        "merged by PEFT's `merge_and_unload`, and saved with the processor of its base.",
    )


def _no_config(path: str) -> Exception:
    directory = Path(path)
    fault = f"{CONFIG} is missing"
    if (directory / "config.yaml").is_file() and (directory / "checkpoints").is_dir():
        out = directory / "export"
        cure = (
            f"Name {out}."
            if out.is_dir()
            else f"Write its model by `rlaifv export {path} OUT`, and name OUT."
        )
        return cannot_load(path, f"it is the directory of a run ({fault})", cure)
    nested = sorted([*directory.glob(f"*/{CONFIG}"), *directory.glob(f"snapshots/*/{CONFIG}")])
    if nested:
        return cannot_load(path, fault, f"There is a model in {nested[0].parent}: name that directory.")
    return cannot_load(
        path, fault, "Copy the whole directory again, or name the one that `save_pretrained` wrote."
    )


def _check_json(path: str, file: Path) -> None:
    with open(file, "rb") as stream:
        first_bytes = stream.read(len(LFS))
    if first_bytes == LFS:
        raise _lfs(path, file)
    if file.stat().st_size <= MAX_PARSED_BYTES:
        _read_json(file)
    elif not first_bytes.lstrip().startswith(b"{"):
        raise _not_json(file, "it does not begin with a brace")


def _read_json(file: Path) -> dict[str, object]:
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _not_json(file, str(error)) from error
    if not isinstance(value, dict):
        raise _not_json(file, f"it holds a {type(value).__name__}")
    return value


def _not_json(file: Path, detail: str) -> Exception:
    begins = file.read_bytes()[:40].decode(errors="replace").strip()
    return cannot_load(file.parent, f"{file.name} is no JSON object ({detail}; it begins {begins!r})")


def _lfs(path: str, file: Path) -> Exception:
    return cannot_load(
        path,
        f"{file.name} is a pointer of Git LFS, not the file itself",
        "Get the files by `git lfs pull` in that directory.",
    )


def _check_weights(path: str) -> None:
    files = dict(_indexed_files(Path(path)))
    for file, expected in files.items():
        if not file.is_file():
            raise cannot_load(
                path, f"{file.name} is missing, which {INDEX} lists ({len(files)} files of weights)"
            )
        with open(file, "rb") as opened:
            if opened.read(len(LFS)) == LFS:
                raise _lfs(path, file)
        if file.suffix == ".safetensors" and (lost := expected - _tensor_names(path, file)):
            raise cannot_load(
                path,
                f"{file.name} lacks weights that {INDEX} says it has, such as {min(lost)} ({len(lost)} in all)",
            )


def _indexed_files(directory: Path) -> Iterator[tuple[Path, set[str]]]:
    """Yield the files of the weights that transformers would read, with the names that an index gives to each."""
    for index in (INDEX, PICKLED_INDEX):
        single = directory / (WEIGHTS if index == INDEX else PICKLED)
        if single.is_file():
            yield single, set()
            return
        if (directory / index).is_file():
            listed = _weight_map(directory / index)
            for name in sorted(set(listed.values())):
                yield directory / name, {weight for weight, file in listed.items() if file == name}
            return


def _weight_map(index: Path) -> dict[str, str]:
    listed = _read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise cannot_load(index.parent, f"{index.name} has no `weight_map` of files")
    return listed


def _tensor_names(path: str, file: Path) -> set[str]:
    try:
        with safe_open(file, "pt") as opened:
            return set(opened.keys())
    except SafetensorError as error:
        raise cannot_load(path, f"{file.name} is cut off, or no safetensors file ({error})") from error
