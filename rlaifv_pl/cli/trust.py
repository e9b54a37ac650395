"""Which classes a config may name: whoever names one runs its code."""

import argparse
from collections.abc import Sequence

from jsonargparse import set_parsing_settings

from rlaifv_pl.cli.own_classes import accept_duck_types

OPTION = "--trust-config"
NAMED = ("rlaifv_pl", "lightning", "torch.optim", "torch.nn", "torch.distributed", "torchmetrics")
"""What configs may name classes and functions of, and of what lies under it."""

TRUSTED: list[str] = []
"""Packages that this command line lets in."""


def is_trusted(name: str) -> bool:
    """Whether a dotted name is of a package that the command line lets in."""
    return any(name.startswith(f"{package}.") for package in TRUSTED)


def trust_packages(arguments: Sequence[str]) -> list[str]:
    """Let configs and options name nothing else than `NAMED` and what `--trust-config` adds.

    Args:
        arguments: of the command line.

    Returns:
        the arguments without `--trust-config PACKAGE`, which may come several times.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(OPTION, action="append", default=[], metavar="PACKAGE")
    known, others = parser.parse_known_args(list(arguments))
    accept_duck_types()
    TRUSTED[:] = known.trust_config
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*NAMED, *known.trust_config])
    return others
