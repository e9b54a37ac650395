"""`rlaifv <verb>`: everything but training, as typed functions; `rlaifv <verb> --help` lists the options."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, auto_cli

from rlaifv_pl.data import verbs as shards
from rlaifv_pl.data.atomic import disk_fault
from rlaifv_pl.data.faults import BadSample
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.manifest import ManifestError
from rlaifv_pl.data.urls import RemoteError
from rlaifv_pl.export.answer import answer
from rlaifv_pl.export.policy import ExportError
from rlaifv_pl.export.verb import export
from rlaifv_pl.feedback import verbs as feedback
from rlaifv_pl.feedback.correct.codebook import CodebookError
from rlaifv_pl.feedback.correct.verb import correct
from rlaifv_pl.feedback.engine import EngineError
from rlaifv_pl.feedback.memory import MemoryFileError
from rlaifv_pl.metrics import verbs as metrics
from rlaifv_pl.metrics.files import BenchmarkError
from rlaifv_pl.metrics.judged import verb as judged
from rlaifv_pl.models.policy import PolicyError
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.preflight.verb import preflight, told
from rlaifv_pl.report import verbs as pages
from rlaifv_pl.report.run_files import ReportError
from rlaifv_pl.rounds.status import status
from rlaifv_pl.run.console import hush
from rlaifv_pl.run.messages import explain
from rlaifv_pl.run.trust import trust
from rlaifv_pl.world import verbs as world

VERBS: dict[str, Any] = {
    "shards": {
        "_help": "make, check and look at shards",
        "import": shards.import_,
        "verify": shards.verify,
        "show": pages.show,
    },
    "feedback": {
        "_help": "preference shards of a policy's own answers, and corrections of the rejected ones",
        "run": feedback.make,
        "correct": correct,
    },
    "rounds": {"_help": "runs that make their own shards", "status": status},
    "evaluate": metrics.evaluate,
    "respond": metrics.respond,
    "judge": {
        "_help": "reviews of saved responses by a language model",
        "mmhal": judged.mmhal,
        "objhal": judged.objhal,
        "llava_bench": judged.llava_bench,
        "refomb": judged.refomb,
    },
    "pope": metrics.pope,
    "report": pages.report,
    "preflight": told,
    "export": export,
    "answer": answer,
    "world": {
        "_help": "tiny models of the miniature world",
        "new": world.new,
        "measure": world.measure,
        "ship": world.ship,
    },
}


EXPLAINED = (
    BadSample,
    BenchmarkError,
    CodebookError,
    EngineError,
    ExportError,
    FileExistsError,
    FileNotFoundError,
    ManifestError,
    MemoryFileError,
    PolicyError,
    RemoteError,
    ReportError,
    RunError,
    SourceError,
)
"""Errors whose message is all that a user needs."""


class Parser(ArgumentParser):
    """Explains a mistake in a few lines."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.exit(f"error: {explain(message, [action.dest for action in self._actions])}")

    def instantiate(self, *args: Any, **kwargs: Any) -> Namespace:
        try:
            return super().instantiate(*args, **kwargs)
        except ValueError as error:  # Of our constructors, about what they were given.
            self.error(str(error), error)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the verb named on the command line, or in `arguments`."""
    hush()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["preflight"]:
            preflight(given[1:])
        else:
            _run(given)
    except EXPLAINED as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        if (fault := disk_fault(error)) is None:
            raise
        sys.exit(f"error: {fault}")


def _run(given: Sequence[str]) -> None:
    named = trust(given)
    if named[:1] == ["feedback"] and not {*named[1:2]} & {"run", "correct", "--help", "-h"}:
        named.insert(1, "run")  # `rlaifv feedback --config FILE` is what one means by feedback.
    # Feedback is made of parts that configs name, and a figure of files that are not alike, so that all they take is
    # an option.
    positional = not {*named[:1]} & {"feedback", "evaluate", "respond", "judge"}
    auto_cli(VERBS, args=named, parser_class=Parser, allow_abbrev=False, as_positional=positional)
