"""`rlaifv <verb>`: everything but training, as typed functions; `rlaifv <verb> --help` lists the options."""

import sys

from jsonargparse import ArgumentParser, auto_cli

from rlaifv_pl.data import verbs as shards
from rlaifv_pl.data.faults import BadSample
from rlaifv_pl.data.manifest import ManifestError
from rlaifv_pl.models.policy import PolicyError
from rlaifv_pl.run.console import hush
from rlaifv_pl.run.export import ExportError, export
from rlaifv_pl.run.messages import explain
from rlaifv_pl.world import verbs as world

VERBS = {
    "shards": {
        "_help": "make, check and look at shards",
        "import": shards.import_,
        "verify": shards.verify,
        "show": shards.show,
    },
    "export": export,
    "world": {
        "_help": "tiny models of the miniature world",
        "new": world.new,
        "measure": world.measure,
        "ship": world.ship,
    },
}


class Parser(ArgumentParser):
    """Explains a mistake in a few lines."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        sys.exit(f"error: {explain(message, [action.dest for action in self._actions])}")


def main() -> None:
    """Run the verb named on the command line."""
    hush()
    try:
        auto_cli(VERBS, parser_class=Parser, allow_abbrev=False)
    except (BadSample, ManifestError, PolicyError, ExportError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
