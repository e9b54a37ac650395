"""An image behind a URL, within limits of size and time."""

from urllib.parse import urlsplit, urlunsplit

from rlaifv_pl.data.bad_samples import Reason
from rlaifv_pl.data.download import retry_until_done
from rlaifv_pl.data.importers.sources import bad_row
from rlaifv_pl.data.remote_directory import RemoteDirectory, RemoteError, RetryPolicy

MAX_BYTES = 2**25
"""34 MB: a photo has seldom a third of it."""
RETRY_POLICY = RetryPolicy(attempts=3, connect=10.0, stall=30.0, pause=1.0)


def fetch_image(url: str) -> bytes:
    """Fetch the file behind an http or https URL, anew where a connection breaks.

    Args:
        url: its query is sent, and left out of messages.

    Raises:
        BadSample: `missing_image` if it cannot be had, `huge_image` above `MAX_BYTES`.
    """
    parts = urlsplit(url)
    folder, _, name = parts.path.rpartition("/")
    try:
        directory = RemoteDirectory(urlunsplit(parts._replace(path=folder, fragment="")), RETRY_POLICY)
        return retry_until_done(lambda: _read(directory, name), directory.show(name), RETRY_POLICY)
    except RemoteError as error:
        raise bad_row(Reason.MISSING_IMAGE, str(error).rstrip(".")) from None


def _read(directory: RemoteDirectory, name: str) -> bytes:
    data = bytearray()
    with directory.open(name, 0) as opened:
        for chunk in opened.chunks:
            data += chunk
            if len(data) > MAX_BYTES:
                raise bad_row(Reason.HUGE_IMAGE, f"{directory.show(name)} has more than {MAX_BYTES} bytes")
    return bytes(data)
