"""Work on a benchmark in chunks with a progress bar, shared by processes."""

from rlaifv_pl.console import track
from rlaifv_pl.feedback.chunks import Chunks, RankShare, Rows

PARTS_SUFFIX = ".parts"


def run_share(parts: Chunks, make: Rows, title: str, share: RankShare) -> None:
    """Make the missing chunks of this process's share; the first process shows a progress bar.

    Args:
        make: returns rows of the records with these numbers.
        title: of the bar.
        share: which chunks are this process's.
    """
    own = share.numbers(parts)
    is_shown = share.is_main_process and not all(map(parts.is_made, own))
    for _ in track(parts.make(make, share), title, len(own), is_shown=is_shown):
        pass
