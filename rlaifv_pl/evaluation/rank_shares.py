"""Work on a benchmark in parts, with a bar: what models are asked is kept batch by batch, and shared by processes."""

from rlaifv_pl.console import track
from rlaifv_pl.feedback.chunks import Chunks, RankShare, Rows

PARTS_SUFFIX = ".parts"


def run_share(parts: Chunks, make: Rows, title: str, share: RankShare) -> None:
    """Make what is missing of this process's parts; the first process shows how far it is.

    Args:
        make: rows of the records with these numbers.
        title: of the bar.
        share: which parts are this process's.
    """
    mine = share.numbers(parts)
    is_shown = share.is_main_process and not all(map(parts.is_made, mine))
    steps = parts.make(make, share)
    for _ in track(steps, title, len(mine), is_shown=is_shown):
        pass
