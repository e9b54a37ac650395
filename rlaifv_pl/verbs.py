"""`rlaifv <verb>`: everything but training, as typed functions; `rlaifv <verb> --help` lists the options."""

import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser, auto_cli

from rlaifv_pl.data import verbs as shards
from rlaifv_pl.data.faults import BadSample
from rlaifv_pl.data.importers.rows import SourceError
from rlaifv_pl.data.manifest import ManifestError
from rlaifv_pl.feedback import verbs as feedback
from rlaifv_pl.feedback.correct.codebook import CodebookError
from rlaifv_pl.feedback.correct.verb import correct
from rlaifv_pl.feedback.engine import EngineError
from rlaifv_pl.models.policy import PolicyError
from rlaifv_pl.rounds.status import status
from rlaifv_pl.run.console import hush
from rlaifv_pl.run.export import ExportError, export
from rlaifv_pl.run.messages import explain
from rlaifv_pl.run.trust import trust
from rlaifv_pl.world import verbs as world

VERBS = {
    "shards": {
        "_help": "make, check and look at shards",
        "import": shards.import_,
        "verify": shards.verify,
        "show": shards.show,
    },
    "feedback": {
        "_help": "preference shards of a policy's own answers, and corrections of the rejected ones",
        "run": feedback.make,
        "correct": correct,
    },
    "rounds": {"_help": "runs that make their own shards", "status": status},
    "export": export,
    "world": {
        "_help": "tiny models of the miniature world",
        "new": world.new,
        "measure": world.measure,
        "ship": world.ship,
    },
}


EXPLAINED = (
    BadSample,
    CodebookError,
    EngineError,
    ExportError,
    FileExistsError,
    FileNotFoundError,
    ManifestError,
    PolicyError,
    SourceError,
)
"""Errors whose message is all that a user needs."""


class Parser(ArgumentParser):
    """Explains a mistake in a few lines."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        sys.exit(f"error: {explain(message, [action.dest for action in self._actions])}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the verb named on the command line, or in `arguments`."""
    hush()
    named = trust(sys.argv[1:] if arguments is None else arguments)
    if named[:1] == ["feedback"] and not {*named[1:2]} & {"run", "correct", "--help", "-h"}:
        named.insert(1, "run")  # `rlaifv feedback --config FILE` is what one means by feedback.
    # Feedback is made of parts that configs name, so that all it takes is an option.
    positional = named[:1] != ["feedback"]
    try:
        auto_cli(VERBS, args=named, parser_class=Parser, allow_abbrev=False, as_positional=positional)
    except EXPLAINED as error:
        sys.exit(f"error: {error}")
