"""Ends of commands that fail: a one-line message that says what to do, and an exit code."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT
"""130, as in shells: the user pressed Ctrl-C."""
BROKEN_PIPE = 128 + signal.SIGPIPE
"""141, as in shells: the reader of the output, such as `head`, has closed it."""


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Exit with a one-line message for errors that a user can fix; anything else stays a traceback.

    Large modules are imported only when an error is handled, so that this can guard the import of everything else.
    """
    try:
        _escape_unencodable()
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        # A further Ctrl-C must not interrupt the exit.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write("\nInterrupted; the same command resumes from what is finished.\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end.
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        if (message := _explain(error)) is None:
            raise
        sys.exit(f"error: {message}")


def _explain(error: Exception) -> str | None:
    from rlaifv_pl.data.atomic import explain_disk_error
    from rlaifv_pl.errors import UserError

    if isinstance(error, UserError | TimeoutError | FileExistsError | FileNotFoundError):
        return str(error)
    fault = explain_disk_error(error)
    return None if fault is None else str(fault)


def _escape_unencodable() -> None:
    """Print characters that the terminal cannot encode as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
