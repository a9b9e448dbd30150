"""How the pool and its decoding children talk: length-prefixed messages over the child's standard input and output.

A message is 4 bytes (big-endian length of the head), 8 bytes (length of the body), the head (JSON, ASCII) and the
body (bytes). A request's head: {"path": str} or {"bytes": true}, and "name" for the note on a wrong extension;
"listening": seconds asks for a listening copy so long instead of a rendition, whose answer's head is {"sha256"}.
An answer's head: {"kind", "form", "sha256", "facts"} with the rendition as body, or {"reason", "advice"}, or
{"defect"} for something that should not have happened; "last": true when the child leaves after it.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

PREFIX: Final = struct.Struct(">IQ")
MAXIMUM_HEAD: Final = 1 << 20


def pack(head: dict[str, Any], body_length: int) -> bytes:
    """Prefix and head; the body follows by itself, so that it need not be copied."""
    text = json.dumps(head).encode("ascii")
    return PREFIX.pack(len(text), body_length) + text


def unpack_head(text: bytes) -> dict[str, Any]:
    """The head of a message.

    Raises:
        ValueError: not a JSON object.
    """
    head = json.loads(text)
    if not isinstance(head, dict):
        raise ValueError("a message's head is a JSON object")
    return head
