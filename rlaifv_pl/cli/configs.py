"""`rlaifv configs`: the configs that come with the package; `--config NAME` finds them in every command."""

import difflib
import shutil
from collections.abc import Sequence
from pathlib import Path

from rlaifv_pl.errors import UserError

DIRECTORY = Path(__file__).parents[1] / "configs"
"""In a checkout a link to the repository's `configs`; in a wheel its files."""
OPTION = "--config"


class ConfigError(UserError):
    """A config that is neither a file nor packaged, or a copy that would replace a file."""


def packaged_configs() -> dict[str, Path]:
    """Return the packaged configs by name: `dpo`, `machine/fsdp`, and `machine/slurm.sh`, which is a script."""
    files = sorted(path for path in DIRECTORY.rglob("*") if path.is_file())
    names = [path.relative_to(DIRECTORY).as_posix().removesuffix(".yaml") for path in files]
    # Configs to start from come before those in directories, which are stacked on them.
    return dict(sorted(zip(names, files, strict=True), key=lambda item: ("/" in item[0], item[0])))


def find_config(name: str) -> Path:
    """Return the path of a packaged config.

    Args:
        name: as `rlaifv configs` lists it; a leading `configs/` and the suffix `.yaml` may be there.

    Raises:
        ConfigError: there is none of that name; the message lists the nearest ones.
    """
    known = packaged_configs()
    plain = name.removeprefix("configs/").removesuffix(".yaml")
    if plain in known:
        return known[plain]
    hint = _nearest(Path(name), plain, list(known))
    raise ConfigError(
        f"--config {name} does not exist: expected a file, or the name of a packaged config.{hint} "
        "`rlaifv configs` lists them."
    )


def resolve_configs(arguments: Sequence[str]) -> list[str]:
    """Replace the names of packaged configs behind `--config` by their paths; files of one's own go first.

    Raises:
        ConfigError: a config is neither a file nor packaged.

    >>> resolve_configs(["fit", "--config=dpo", "--data.train", "dpo"])[1:]  # doctest: +ELLIPSIS
    ['--config=...dpo.yaml', '--data.train', 'dpo']
    """
    resolved, is_value = [], False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if is_value:
            argument = _resolve(argument)
        elif name == OPTION and equals:
            argument = f"{OPTION}={_resolve(value)}"
        is_value = argument == OPTION
        resolved.append(argument)
    return resolved


def list_configs() -> None:
    """List the packaged configs by name, each with a line about it."""
    known = packaged_configs()
    width = max(map(len, known)) + 2
    for name, path in known.items():
        print(f"{name:{width}}{_summary(path)}")
    print("\nrlaifv fit --config NAME takes them by name, several on top of each other.")
    print("rlaifv configs copy NAME writes one to a file to edit.")


def copy(name: str, out: str | None = None, overwrite: bool = False) -> None:
    """Copy a packaged config to a file of your own.

    Args:
        name: name of the config, as `rlaifv configs` lists it.
        out: file or directory to write; the config's own file name in the current directory unless given.
        overwrite: replace a file that is there already.

    Raises:
        ConfigError: there is no such config, or the file exists.
    """
    source = find_config(name)
    target = Path(out or source.name)
    if target.is_dir() or (out or "").endswith("/"):
        target = target / source.name
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists: name another file, or add --overwrite true.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    print(f"{name} is in {target}: {_summary(source)}")


def _resolve(value: str) -> str:
    """Leave files, texts in YAML or JSON, and URLs alone; anything else is a name."""
    path = Path(value)
    is_own = path.exists() and not path.is_dir()  # A pipe, as of `<(command)`, is none of these.
    return (
        value if is_own or any(mark in value for mark in "\n{:") or value == "-" else str(find_config(value))
    )


def _nearest(path: Path, plain: str, known: Sequence[str]) -> str:
    """Return "Did you mean ...?" with the nearest names, by the whole name or its last part, and the nearest files."""
    last = {name.rpartition("/")[2]: name for name in reversed(known)}
    near = difflib.get_close_matches(plain, known, cutoff=0.6)
    near += [last[name] for name in difflib.get_close_matches(plain.rpartition("/")[2], last, cutoff=0.7)]
    siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    near += [str(path.with_name(name)) for name in difflib.get_close_matches(path.name, siblings, cutoff=0.7)]
    return f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""


def _summary(path: Path) -> str:
    """Return the first line of a config that is a comment in prose."""
    lines = path.read_text().splitlines()
    return next(line.removeprefix("# ") for line in lines if line.startswith("# "))
