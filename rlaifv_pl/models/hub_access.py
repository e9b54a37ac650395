"""Find out within seconds whether the hub can be reached, instead of minutes of retries."""

import threading
from functools import cache

from huggingface_hub import constants, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import get_session, validate_repo_id

from rlaifv_pl.models.checkpoint_files import CONFIG
from rlaifv_pl.models.errors import cannot_load

REACH_SECONDS = 3.0
"""Time limit for any answer of the hub."""


def hub_options(name: str, revision: str | None) -> dict[str, bool]:
    """Return options with which `from_pretrained` finds a model by its hub name: from the cache alone without a hub.

    Raises:
        PolicyError: it is no hub name, or neither the hub can be reached nor does the cache hold the model.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise cannot_load(
            name,
            "it is no directory, and no name of the form OWNER/NAME either",
            "Correct policy.path or model.path.",
        ) from error
    if not is_offline_mode() and is_reachable(constants.ENDPOINT):
        return {}
    if isinstance(try_to_load_from_cache(name, CONFIG, revision=revision), str):
        return {"local_files_only": True}
    why = "HF_HUB_OFFLINE is set" if is_offline_mode() else f"{constants.ENDPOINT} does not answer"
    raise cannot_load(
        name,
        f"there is no such directory here, and as a hub name it is not available: {why}, and the cache "
        f"({constants.HF_HUB_CACHE}) does not hold it",
        "Correct the path, or copy the model to a directory here and name that.",
    )


@cache
def is_reachable(endpoint: str) -> bool:
    """Return whether anything answers at an address, within `REACH_SECONDS`."""
    answers: list[object] = []

    def request() -> None:
        try:
            answers.append(get_session().head(endpoint, timeout=REACH_SECONDS))
        except Exception:  # Any error means that it is not reachable.
            return

    # In a thread, since looking up a name has no time limit of its own.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return bool(answers)
