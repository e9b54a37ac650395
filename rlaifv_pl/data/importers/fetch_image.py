"""An image behind a URL, within limits of size and time."""

from urllib.parse import urlsplit, urlunsplit

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.download import retry_until_done
from rlaifv_pl.data.remote_directory import RemoteDirectory, RemoteError, RetryPolicy

MAX_BYTES = 2**25
"""34 MB: a photo has seldom a third of it."""
PATIENCE = RetryPolicy(attempts=3, connect=10.0, stall=30.0, pause=1.0)


def fetch_image(url: str, where: str) -> bytes:
    """The file behind an http or https URL, asked for anew where a connection breaks.

    Args:
        url: whose query is sent, and left out of messages.
        where: file and row, named in errors.

    Raises:
        BadSample: `missing_image` if it cannot be had, `huge_image` above `MAX_BYTES`.
    """
    parts = urlsplit(url)
    folder, _, name = parts.path.rpartition("/")
    try:
        directory = RemoteDirectory(urlunsplit(parts._replace(path=folder, fragment="")), PATIENCE)
        return retry_until_done(lambda: _read(directory, name, where), directory.show(name), PATIENCE)
    except RemoteError as error:
        raise BadSample(Reason.MISSING_IMAGE, where, str(error).rstrip(".")) from None


def _read(directory: RemoteDirectory, name: str, where: str) -> bytes:
    data = bytearray()
    with directory.open(name, 0) as opened:
        for chunk in opened.chunks:
            data += chunk
            if len(data) > MAX_BYTES:
                detail = f"{directory.show(name)} has more than {MAX_BYTES} bytes"
                raise BadSample(Reason.HUGE_IMAGE, where, detail)
    return bytes(data)
