"""Read a model's config.pbtxt (protobuf text format) without protobuf. Writing configs is left to their authors.

Only what such files hold is understood: `name: value`, `name { ... }`, `name [ ..., ... ]`, strings, numbers, words
and comments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_TOKEN = re.compile(r'\s+|#[^\n]*|(?P<token>"(?:\\.|[^"\\])*"|[{}\[\]:,;]|[^\s{}\[\]:,;#"]+)')


def read(path: Path) -> dict[str, list[Any]]:
    """Fields of a config.pbtxt; each name maps to the list of its values (strings, or dicts for messages).

    Raises:
        ValueError: the file is not in the text format; says where.
    """
    text = path.read_text(encoding="utf-8")
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"{path}: cannot read character {position}: {text[position : position + 20]!r}")
        position = match.end()
        if match["token"] is not None:
            tokens.append(match["token"])
    fields, rest = _message(tokens, 0, path)
    if rest != len(tokens):
        raise ValueError(f"{path}: a closing brace too many")
    return fields


def parameters(fields: dict[str, list[Any]]) -> dict[str, str]:
    """`parameters { key: ... value: { string_value: ... } }` blocks as a dict."""
    return {block["key"][0]: block["value"][0]["string_value"][0] for block in fields.get("parameters", [])}


def _message(tokens: list[str], at: int, path: Path) -> tuple[dict[str, list[Any]], int]:
    fields: dict[str, list[Any]] = {}
    while at < len(tokens) and tokens[at] != "}":
        name = tokens[at]
        if name in ",;":
            at += 1
            continue
        at += 1
        if at < len(tokens) and tokens[at] == ":":
            at += 1
        if at >= len(tokens):
            raise ValueError(f"{path}: `{name}` has no value")
        if tokens[at] == "[":
            at += 1
            values: list[Any] = []
            while at < len(tokens) and tokens[at] != "]":
                if tokens[at] == ",":
                    at += 1
                    continue
                value, at = _value(tokens, at, path)
                values.append(value)
            fields.setdefault(name, []).extend(values)
            at += 1
        else:
            value, at = _value(tokens, at, path)
            fields.setdefault(name, []).append(value)
    return fields, at


def _value(tokens: list[str], at: int, path: Path) -> tuple[Any, int]:
    if tokens[at] == "{":
        inner, at = _message(tokens, at + 1, path)
        if at >= len(tokens):
            raise ValueError(f"{path}: a brace is not closed")
        return inner, at + 1
    token = tokens[at]
    if token.startswith('"'):
        token = re.sub(r"\\(.)", r"\1", token[1:-1])
    return token, at + 1
