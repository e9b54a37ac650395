"""Messages of libraries that are kept off the screen."""

import logging
import os
import sys
import threading
import warnings

from rlaifv_pl.data.atomic import explain_disk_error

# What libraries say about themselves, and no user of ours can act on.
CHATTER = (
    ".*treespec.*deprecated.*",
    "Total length of `list` across ranks is zero.*",
    # PEFT asks transformers by the old name.
    ".*`is_gradient_checkpointing` is deprecated.*",
    # A frozen tower is in evaluation mode, and is to be.
    ".*module\\(s\\) in eval mode at the start of training.*",
    ".*does not have many workers which may be a bottleneck.*",
    ".*args parameter is intended to run from within Python.*",
    # The DataModule knows the position.
    ".*ended before the epoch ended and your dataloader is not resumable.*",
)


class _Stderr(logging.StreamHandler):
    """Writes to the stderr of the moment: a progress bar puts its own in place, and redraws itself below."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def ignore_library_warnings() -> None:
    """Ignore what libraries warn of when they are imported; cheap, and so the first thing that a command does."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message in CHATTER:
        warnings.filterwarnings("ignore", message=message)


def silence_library_logs() -> None:
    """Keep the chatter of libraries off the screen; their errors and other warnings still come."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    ignore_library_warnings()
    disable_progress_bar()
    enable_progress_bars()  # Those of downloads, which the line above switches off as well.
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.logger_connector",
    ):
        logging.getLogger(name).addFilter(lambda record: "litlogger" not in record.getMessage())
    for name in ("lightning.pytorch", "lightning.fabric", "transformers"):
        logger = logging.getLogger(name)
        logger.handlers = [
            _Stderr() if type(each) is logging.StreamHandler else each for each in logger.handlers
        ]
    threading.excepthook = _report_thread_error


def _report_thread_error(arguments: threading.ExceptHookArgs) -> None:
    """Do as Python does, but not for a full disk: the thread that writes event files raises it once more, where it is
    explained."""
    if arguments.exc_value is None or explain_disk_error(arguments.exc_value) is None:
        threading.__excepthook__(arguments)
