"""How a command ends that does not end well: in a line that says what to do, and an exit code."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT
"""130, as shells have it: the user pressed Ctrl-C."""
NOBODY_READS = 128 + signal.SIGPIPE
"""141, as shells have it: whoever read the output, such as `head`, has had enough."""


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Tell what a user can mend, or did, in a line; anything else comes as a traceback.

    Nothing large is imported before it is needed, so that this can be in force while everything else is.
    """
    try:
        _write_any_text()
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        # What is still to be told of it at the end is nobody's any more.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write("\nInterrupted; the same command, given again, goes on from what is finished.\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end.
        sys.exit(NOBODY_READS)
    except Exception as error:
        if (said := _explained(error)) is None:
            raise
        sys.exit(f"error: {said}")


def _explained(error: Exception) -> str | None:
    from rlaifv_pl.data.atomic import explain_disk_error
    from rlaifv_pl.errors import UserError

    if isinstance(error, UserError | TimeoutError | FileExistsError | FileNotFoundError):
        return str(error)
    fault = explain_disk_error(error)
    return None if fault is None else str(fault)


def _write_any_text() -> None:
    """Let a terminal that knows fewer characters show the others by their numbers."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
