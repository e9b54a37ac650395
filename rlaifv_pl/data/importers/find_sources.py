"""From paths to sources: patterns, folders, and data sets that were downloaded from the hub, by config and split."""

import glob
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from datasets.data_files import FILES_TO_IGNORE, SPLIT_KEYWORDS
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from rlaifv_pl.data.importers.sources import HUB, SUFFIXES, Source, SourceError, table_suffix
from rlaifv_pl.data.importers.text_files import COMPRESSIONS

_MAX_STEM_LENGTH = 60
_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\b")
_SEPARATORS = re.compile(r"[-._ 0-9/]+")


def find_sources(paths: Sequence[str | Path]) -> list[Source]:
    """List the files to read: patterns and directories are expanded in alphabetical order, the rest stays in order.

    Raises:
        FileNotFoundError: a path does not exist, or a directory holds nothing to import.
        SourceError: a directory holds several splits or misses parts of one, or a file is named twice.
    """
    files = [file for path in paths for file in chain.from_iterable(map(_expand, _matching(path)))]
    _refuse_twice(files)
    sources: dict[str, Source] = {}
    for file in files:
        name = file.stem if file.suffix.lower() not in COMPRESSIONS else Path(file.stem).stem
        stem = re.sub(r"[^a-z0-9_-]+", "_", name.lower())[:_MAX_STEM_LENGTH]
        names = chain([stem], (f"{stem}-{number}" for number in count(2)))
        name = next(name for name in names if name not in sources)
        sources[name] = Source(file, name)
    return list(sources.values())


def _matching(path: str | Path) -> list[str]:
    """The path itself, or where there is none, what it matches as a pattern."""
    text = str(path)
    if text.startswith(HUB) or Path(text).exists() or not glob.has_magic(text):
        return [text]
    if not (found := sorted(glob.glob(text, recursive=True))):
        raise FileNotFoundError(f"no file matches {text}. Check the pattern.")
    return found


def _refuse_twice(files: Iterable[Path]) -> None:
    """Refuse a file that would be imported twice, under one name or two."""
    seen: dict[Path, Path] = {}
    for file in files:
        if (first := seen.setdefault(file.resolve(), file)) is not file:
            raise SourceError(f"{file} is named twice, first as {first}. Leave one of them out.")


def _expand(text: str) -> list[Path]:
    """The files that a path stands for; a folder may be followed by `:SPLIT` or `:CONFIG:SPLIT`.

    Raises:
        FileNotFoundError: there is nothing to import.
        SourceError: the folder holds several splits, or misses parts of one.
    """
    path, wanted = Path(text), []
    while not text.startswith(HUB) and not path.exists() and ":" in path.name:
        name, _, last = str(path).rpartition(":")
        path, wanted = Path(name), [last, *wanted]
    if text.startswith(HUB) or (path.is_file() and table_suffix(path) and not wanted):
        return [Path(text)]
    if path.is_dir():
        return _saved(path, wanted) or _chosen(path, wanted)
    raise FileNotFoundError(_nothing(text))


def _saved(path: Path, wanted: Sequence[str]) -> list[Path]:
    """The directory of a saved data set, if it is one."""
    if (path / "state.json").exists() and (path / "dataset_info.json").exists():
        return [path]
    if not (path / "dataset_dict.json").exists():
        return []
    splits = sorted(inner.parent.name for inner in path.glob("*/dataset_info.json"))
    return [path / _one(path, "splits", splits, wanted[-1:])]


def _chosen(path: Path, wanted: Sequence[str]) -> list[Path]:
    configs = _by_card(path) or {"default": _by_name(path)}
    told = [_one(path, "configs", list(configs), wanted[:1])] if len(configs) > 1 else []
    splits = configs[told[0]] if told else next(iter(configs.values()))
    files = splits[_one(path, "splits", list(splits), wanted[len(told) :], told)]
    if not files:
        raise FileNotFoundError(_nothing(str(path)))
    _refuse_missing(files)
    return files


def _one(path: Path, kind: str, names: list[str], wanted: Sequence[str], told: Sequence[str] = ()) -> str:
    """The one that is wanted, or the only one.

    Raises:
        FileNotFoundError: there are none.
        SourceError: there are several, or it is none of them.
    """
    if not names:
        raise FileNotFoundError(_nothing(str(path)))
    if [*wanted] and wanted[0] in names:
        return wanted[0]
    if len(names) == 1 and not wanted:
        return names[0]
    follows = ":SPLIT" if kind == "configs" else ""
    example = ":".join([str(path), *told, f"{names[0]}{follows}"])
    raise SourceError(f"{path} holds the {kind} {names}. Import one of them, as {example}.")


def _by_card(path: Path) -> dict[str, dict[str, list[Path]]]:
    """Files by config and split, if the data set's card tells them."""
    card = path / "README.md"
    if not card.is_file() or not card.read_bytes().startswith(b"---"):
        return {}
    try:
        configs = MetadataConfigs.from_dataset_card_data(
            DatasetCard.load(card, ignore_metadata_errors=True).data
        )
    except (ValueError, TypeError, KeyError):
        return {}  # A page about something else.
    return {
        name: _by_patterns(path, told["data_files"]) for name, told in configs.items() if "data_files" in told
    }


def _by_patterns(path: Path, told: Any) -> dict[str, list[Path]]:
    entries = (
        told
        if isinstance(told, list) and isinstance(told[0], Mapping)
        else [{"split": "train", "path": told}]
    )
    splits = {}
    for entry in entries:
        patterns = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
        files = {file for pattern in patterns for file in path.glob(pattern) if table_suffix(file)}
        splits[entry["split"]] = sorted(files)
    return splits


def _by_name(path: Path) -> dict[str, list[Path]]:
    """Files by the split that their names tell; those of subfolders only where the folder itself has none.

    Raises:
        SourceError: some tell one and others do not.
    """
    files = _tables(path, "*") or _tables(path, "**/*")
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        splits[_split_of(file.relative_to(path))].append(file)
    if len(splits) > 1 and "" in splits:
        names = [file.name for file in splits[""][:3]]
        raise SourceError(
            f"{path} holds the splits {sorted({*splits} - {''})}, and {names} beside them. Name the files to import."
        )
    return splits or {"train": []}


def _tables(path: Path, pattern: str) -> list[Path]:
    found = (file for file in sorted(path.glob(pattern)) if table_suffix(file) and file.is_file())
    return [
        file
        for file in found
        if file.name not in FILES_TO_IGNORE
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]


def _split_of(path: Path) -> str:
    """The split that a file's name or its folders' tell; empty if they do not."""
    for text in (path.name.lower(), path.parent.as_posix().lower()):
        words = set(_SEPARATORS.split(text))
        if found := [str(split) for split, names in SPLIT_KEYWORDS.items() if words & {*names}]:
            return found[0]
    part = _PART.match(path.name)
    return part["name"] if part else ""


def _refuse_missing(files: Sequence[Path]) -> None:
    """Refuse parts of a split without the others: `train-00000-of-00004.parquet` alone."""
    found: dict[tuple[Path, str, int], set[int]] = defaultdict(set)
    for file in files:
        if part := _PART.match(file.name):
            found[file.parent, part["name"], int(part["count"])].add(int(part["number"]))
    for (folder, name, number), parts in found.items():
        if missing := sorted({*range(number)} - parts):
            raise SourceError(
                f"{folder} holds {len(parts)} of the {number} parts of {name}: {missing[:5]} are missing. Download "
                "them, or name the files to import."
            )


def _nothing(text: str) -> str:
    if not Path(text).exists():
        return f"there is no {text}. Check the path; a data set of the hub is {HUB}OWNER/NAME."
    return (
        f"{text} is no file ending in {', '.join(SUFFIXES)} (also compressed), no directory of such files, and no "
        f"directory written by `Dataset.save_to_disk`. Check the path; a data set of the hub is {HUB}OWNER/NAME."
    )
