"""Settings fit to be published: no secrets, and nothing of the machine that they were used on."""

import re
from pathlib import PurePosixPath
from typing import Any

from rlaifv_pl.data.remote_directory import redact

LEFT_OUT = "(left out)"
_SECRET = re.compile(
    r"(?i).*(password|passwd|secret|credential|authorization|api_?key|access_?key)s?|(.*_)?token"
)
_PLACE = re.compile(r"(?:[a-z][a-z0-9+.-]*://|~/|(?<![\w.])/|\.\./)[^\s'\"]+")
"""A URL, or a path that does not begin where the program was started."""


def cleaned(value: Any) -> Any:
    """A value of YAML or JSON without secrets; a URL or an absolute path is given by its last part.

    >>> cleaned({"out": "/home/me/runs/dpo", "api_key": "s3", "shards": "https://me:pw@host/pairs?sig=1"})
    {'out': 'dpo', 'api_key': '(left out)', 'shards': 'pairs'}
    """
    match value:
        case dict():
            return {
                name: LEFT_OUT if each and _SECRET.fullmatch(str(name)) else cleaned(each)
                for name, each in value.items()
            }
        case list() | tuple():
            return [cleaned(each) for each in value]
        case str():
            # A path may have spaces, if it is all that there is.
            return (
                _last_part(value) if _PLACE.match(value) else _PLACE.sub(lambda at: _last_part(at[0]), value)
            )
        case _:
            return value


def _last_part(place: str) -> str:
    # Cut at a query first, which may have slashes of its own.
    return PurePosixPath(redact(place).split("?")[0].split("#")[0]).name
