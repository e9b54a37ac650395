"""What is kept off the screen. Nothing large is imported here: every command line comes by."""

import logging
import os
import sys
import threading
import warnings

from huggingface_hub.utils import enable_progress_bars
from transformers.utils.logging import disable_progress_bar

from rlaifv_pl.data.atomic import explain_disk_error

# Of the libraries about themselves; nothing that a user of ours could act on.
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
    """Writes to what stderr is by then: under a progress bar that is the bar's own, which draws itself anew below."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def silence_library_logs() -> None:
    """Keep the chatter of libraries off the screen; their errors and other warnings still come."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    disable_progress_bar()
    enable_progress_bars()  # Of downloads, which the line above switches off as well.
    for message in CHATTER:
        warnings.filterwarnings("ignore", message=message)
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
    threading.excepthook = _tell_of_thread


def _tell_of_thread(what: threading.ExceptHookArgs) -> None:
    """As Python does; but what writes event files in a thread raises a full disk once more, where it is explained."""
    if what.exc_value is None or explain_disk_error(what.exc_value) is None:
        threading.__excepthook__(what)
