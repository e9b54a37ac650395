"""One HTML file with all that it needs inside. No text of a model, a shard or a config can run in it.

Data are JSON in script elements that browsers do not execute, without a character that could end them; the scripts put
texts into the page as text alone; and a policy in the page's head lets nothing run or load but what stands here.
"""

import base64
import hashlib
import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.report.content import Content

SCRIPTS = ("dom.js", "charts.js", "run.js", "answers.js", "held_out.js", "browser.js")
"""Scripts in the order of execution; the last one starts the page."""


def write_page(content: Content, path: Path) -> int:
    """Write the page, whole or not at all; its size in bytes.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no directory: make it, or name another file for the page.")
    data = render(content.page, content.thumbnails.text).encode()
    with atomic_file(path) as file:
        file.write(data)
    return len(data)


def render(page: dict[str, Any], images: str) -> str:
    """The file's text; the same for the same content.

    Args:
        page: what the scripts show.
        images: in base64, one behind the other, as `page["images"]` says.
    """
    style, script = asset("page.css"), "\n".join(map(asset, SCRIPTS))
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_source_hash(style)}'; script-src '{_source_hash(script)}'"
    )
    parts = {
        "POLICY": policy,
        "TITLE": html.escape(page["title"]),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": safe_json(page),
        "IMAGES": images,
    }
    # Split rather than replaced: a text that looks like a mark must not be taken for one.
    first, *rest = asset("page.html").split("{{")
    return first + "".join(parts[name] + tail for name, _, tail in (each.partition("}}") for each in rest))


def safe_json(value: Any) -> str:
    """JSON in ASCII that can stand in a script element: nothing in it opens or closes a tag.

    >>> safe_json("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def asset(name: str) -> str:
    """Text of one of the files that a page is made of."""
    return (files("rlaifv_pl.report") / name).read_text()


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
