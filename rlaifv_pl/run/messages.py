"""Short answers to mistakes on the command line."""

import difflib
import re
from collections.abc import Iterable


def explain(message: str, names: Iterable[str]) -> str:
    """The parser's message, with the nearest option names where one is unknown.

    >>> explain("Option 'trainer.max_epoch' is not accepted", ["trainer.max_epochs", "data.train"])
    "Option 'trainer.max_epoch' is not accepted\\n  did you mean trainer.max_epochs?"
    """
    unknown = re.findall(r"(?:[Oo]ption|[Kk]ey|[Aa]rguments?:?) ['\"]?-*([\w.]+)['\"]?", message)
    near = [name for option in unknown for name in difflib.get_close_matches(option, list(names), n=3, cutoff=0.75)]
    near = [name for name in dict.fromkeys(near) if name not in unknown]
    return f"{message.strip()}\n  did you mean {' or '.join(near)}?" if near else message.strip()
