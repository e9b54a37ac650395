"""Name a file that was taken for an image and is none that can be decoded, by its first bytes."""

_LOOKED_AT = 1024

_MAGIC = {
    b"version https://git-lfs": "a Git LFS pointer (`git lfs pull` fetches the image itself)",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\0\0\1\0": "an icon (ICO)",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript drawing",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUMPY": "a NumPy array",
    b"PAR1": "a parquet file",
    b"\x1aE\xdf\xa3": "a video (WebM)",
    b"\x89HDF": "an HDF5 file",
}
_BRANDS = {b"avif": "an AVIF image", b"avis": "an AVIF image", b"qt  ": "a video (QuickTime)"}
_HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_MARKUP = {
    "<!doctype html": "a web page (HTML)",
    "<html": "a web page (HTML)",
    "<head": "a web page (HTML)",
    "<body": "a web page (HTML)",
    "<svg": "an SVG drawing",
    "<!doctype svg": "an SVG drawing",
    "<?xml": "an XML document",
    "{": "JSON",
    "[": "JSON",
}


def file_kind(data: bytes) -> str | None:
    """Name the kind of a file in words, or None if it is unknown.

    >>> file_kind(b"<html>404 Not Found</html>"), file_kind(b"")
    ('a web page (HTML)', 'an empty file')
    """
    if not data.strip(b"\0"):
        return f"nothing but {len(data)} zero bytes" if data else "an empty file"
    if data[4:8] == b"ftyp":
        return "a HEIC image" if data[8:12] in _HEIC else _BRANDS.get(data[8:12], "a video (MP4)")
    if data[:4] == b"RIFF":
        return "a WebP image" if data[8:12] == b"WEBP" else "a video or sound (RIFF)"
    if data[128:132] == b"DICM":
        return "a DICOM image"
    found = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    return found or _text_kind(data[:_LOOKED_AT])


def _text_kind(data: bytes) -> str | None:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding, errors="ignore").lstrip()
    if not text or not all(character.isprintable() or character.isspace() for character in text):
        return None
    start = text.lower()
    if start.startswith("<?xml"):
        # What matters is the first element, behind declarations and comments.
        start = next((start[start.index(mark) :] for mark in ("<svg", "<html") if mark in start), start)
    return next((kind for mark, kind in _MARKUP.items() if start.startswith(mark)), "a text")
