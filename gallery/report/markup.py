"""HTML and SVG that cannot be broken out of: whatever is not `Safe` is escaped where it is put in.

A title may hold quotes, tags, control characters or half a bidirectional override; none of them reaches the page as
anything but text. What elements mean is left to the callers.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Final

_VOID: Final = frozenset({"meta", "img", "link", "br", "hr", "input"})
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")
"""Control characters, half pairs and non-characters: not allowed in HTML, or unreadable."""


class Safe(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | float | None | Iterable["Child"]


def text(value: str | float) -> Safe:
    """A value as text of the page."""
    if isinstance(value, Safe):
        return value
    return Safe(html.escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True))


def joined(*children: Child) -> Safe:
    """Children one after another; None is nothing."""
    pieces: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str | float | int):
            pieces.append(text(child))
        else:
            pieces.append(joined(*child))
    return Safe("".join(pieces))


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Safe:
    """An element: `element("a", "to the top", href="#top", aria_label="...")`.

    Attributes: a trailing underscore is dropped and the others become hyphens (`class_`, `aria_label`; `viewBox`
    stays); None and False leave one out, True gives its name alone.
    """
    pieces = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        pieces.append(f" {key}" if value is True else f' {key}="{text(value)}"')
    pieces.append(">")
    if name in _VOID:
        return Safe("".join(pieces))
    return Safe("".join((*pieces, joined(*children), f"</{name}>")))


def title_of(value: str) -> Safe:
    """A title that people gave, in its own direction of writing."""
    return element("bdi", value)
