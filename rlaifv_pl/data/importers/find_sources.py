"""From paths to sources: patterns, folders, and data sets that were downloaded from the hub, by config and split."""

import glob
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from datasets.data_files import FILES_TO_IGNORE, SPLIT_KEYWORDS, sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from rlaifv_pl.data.importers.sources import HUB, SUFFIXES, Source, SourceError, table_suffix
from rlaifv_pl.data.importers.text_files import COMPRESSIONS

_MAX_STEM_LENGTH = 60
_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\b")
_SEPARATORS = re.compile(r"[-._ 0-9/]+")

Splits = dict[str, list[Path]]


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
    """Return the path itself, or where there is none, what it matches as a pattern."""
    text = str(path)
    if text.startswith(HUB) or Path(text).exists() or not glob.has_magic(text):
        return [text]
    if not (paths := sorted(glob.glob(text, recursive=True))):
        raise FileNotFoundError(f"no file matches {text}. Check the pattern.")
    return paths


def _refuse_twice(files: Iterable[Path]) -> None:
    """Refuse a file that would be imported twice, under one name or two."""
    seen: dict[Path, Path] = {}
    for file in files:
        if (first := seen.setdefault(file.resolve(), file)) is not file:
            raise SourceError(f"{file} is named twice, first as {first}. Leave one of them out.")


def _expand(text: str) -> list[Path]:
    """Return the files that a path stands for; a folder may be followed by `:SPLIT` or `:CONFIG:SPLIT`.

    Raises:
        FileNotFoundError: there is nothing to import.
        SourceError: the folder holds several splits, or misses parts of one.
    """
    path, choices = Path(text), []
    while not text.startswith(HUB) and not path.exists() and ":" in path.name:
        name, _, last = str(path).rpartition(":")
        path, choices = Path(name), [last, *choices]
    if text.startswith(HUB) or (path.is_file() and table_suffix(path) and not choices):
        return [Path(text)]
    if not path.is_dir():
        raise _nothing_to_import(text)
    if (path / "state.json").exists() and (path / "dataset_info.json").exists():
        return [path]
    if (path / "dataset_dict.json").exists():
        splits = sorted(inner.parent.name for inner in path.glob("*/dataset_info.json"))
        return [path / _choose(path, "splits", splits, choices[-1:])]
    return _files_of_split(path, choices)


def _files_of_split(path: Path, choices: Sequence[str]) -> list[Path]:
    configs = _configs_by_card(path) or {"default": _splits_by_name(path)}
    chosen: list[str] = []
    if len(configs) > 1:
        chosen = [_choose(path, "configs", list(configs), choices[:1])]
    splits = configs[chosen[0] if chosen else next(iter(configs))]
    files = splits[_choose(path, "splits", list(splits), choices[len(chosen) :], chosen)]
    if not files:
        raise _nothing_to_import(str(path))
    _refuse_missing_parts(files)
    return files


def _choose(
    path: Path, kind: str, names: list[str], choices: Sequence[str], chosen: Sequence[str] = ()
) -> str:
    """Return the name that is asked for, or the only one.

    Raises:
        FileNotFoundError: there are none.
        SourceError: there are several, or it is none of them.
    """
    if not names:
        raise _nothing_to_import(str(path))
    if choices and choices[0] in names:
        return choices[0]
    if len(names) == 1 and not choices:
        return names[0]
    split = ":SPLIT" if kind == "configs" else ""
    example = ":".join([str(path), *chosen, f"{names[0]}{split}"])
    raise SourceError(f"{path} holds the {kind} {names}. Import one of them, as {example}.")


def _configs_by_card(path: Path) -> dict[str, Splits]:
    """Return files by config and split, if the data set's card lists them."""
    card = path / "README.md"
    if not card.is_file() or not card.read_bytes().startswith(b"---"):
        return {}
    try:
        data = DatasetCard.load(card, ignore_metadata_errors=True).data
        configs = MetadataConfigs.from_dataset_card_data(data)
        return {
            name: _splits_by_patterns(path, config)
            for name, config in configs.items()
            if "data_files" in config
        }
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return {}  # A page about something else.


def _splits_by_patterns(path: Path, config: Mapping[str, Any]) -> Splits:
    splits = sanitize_patterns(config["data_files"])
    return {str(split): _tables(path, *patterns) for split, patterns in splits.items()}


def _splits_by_name(path: Path) -> Splits:
    """Return files by the split in their names; those of subfolders only where the folder itself has none.

    Raises:
        SourceError: some names hold a split and others do not.
    """
    splits: Splits = defaultdict(list)
    for file in _tables(path, "*") or _tables(path, "**/*"):
        splits[_split_in_name(file.relative_to(path))].append(file)
    if len(splits) > 1 and "" in splits:
        files = [file.name for file in splits[""][:3]]
        raise SourceError(
            f"{path} holds the splits {sorted({*splits} - {''})}, and {files} beside them. Name the files to import."
        )
    return splits or {"train": []}


def _tables(path: Path, *patterns: str) -> list[Path]:
    """Return the files of rows in a folder, without hidden ones and those that describe a data set."""
    files = sorted({file for pattern in patterns for file in path.glob(pattern) if table_suffix(file)})
    shown = (file for file in files if not re.search(r"(^|/)\.", file.relative_to(path).as_posix()))
    return [file for file in shown if file.is_file() and file.name not in FILES_TO_IGNORE]


def _split_in_name(path: Path) -> str:
    """Return the split in a file's name or in those of its folders; empty if there is none."""
    for text in (path.name.lower(), path.parent.as_posix().lower()):
        words = set(_SEPARATORS.split(text))
        if splits := [str(split) for split, names in SPLIT_KEYWORDS.items() if words & {*names}]:
            return splits[0]
    part = _PART.match(path.name)
    return part["name"] if part else ""


def _refuse_missing_parts(files: Sequence[Path]) -> None:
    """Refuse parts of a split without the others: `train-00000-of-00004.parquet` alone."""
    numbers: dict[tuple[Path, str, int], set[int]] = defaultdict(set)
    for file in files:
        if part := _PART.match(file.name):
            numbers[file.parent, part["name"], int(part["count"])].add(int(part["number"]))
    for (folder, name, number), parts in numbers.items():
        if missing := sorted({*range(number)} - parts):
            raise SourceError(
                f"{folder} holds {len(parts)} of the {number} parts of {name}: {missing[:5]} are missing. Download "
                "them, or name the files to import."
            )


def _nothing_to_import(text: str) -> FileNotFoundError:
    remedy = f"Check the path; a data set of the hub is {HUB}OWNER/NAME."
    if not Path(text).exists():
        return FileNotFoundError(f"there is no {text}. {remedy}")
    return FileNotFoundError(
        f"{text} is no file ending in {', '.join(SUFFIXES)} (also compressed), no directory of such files, and no "
        f"directory written by `Dataset.save_to_disk`. {remedy}"
    )
