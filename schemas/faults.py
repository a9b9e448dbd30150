"""What does not fit, said to people: one sentence for each fault that pydantic finds in what a person gave.

pydantic's own text is made for programmers: it names types and links to its manual. Settings, the command line and
the HTTP API say the same things in the words from here, each under the name that the person knows (a variable, a
parameter).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

_MOST_QUOTED: Final = 80
"""Characters of a wrong value that are quoted back: enough to recognise it."""

_KINDS: Final = {"int": "a whole number", "float": "a number", "decimal": "a number", "bool": "true or false"}


def fault_text(fault: Mapping[str, Any], expected: str = "") -> str:
    """One fault in words, without the name of what is wrong and without a full stop.

    Args:
        fault: an entry of `ValidationError.errors()`: type, msg and, where there are any, input and ctx.
        expected: what the value should have been ("a whole number from 1 to 65535"); worked out from the fault, as
            far as that tells, where it is empty.
    """
    kind, context = str(fault["type"]), fault.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context.get("error", fault["msg"]))
    if kind in ("string_too_short", "too_short") and context.get("min_length") == 1:
        return "is empty"
    if kind == "string_unicode":
        return "is not valid text"
    if kind == "string_too_long":
        most = f"{context['max_length']:,} characters"
        if "input" not in fault:
            return f"has more than {most}"
        return f"has {len(fault['input']):,} characters; {most} are the most"
    if kind in ("literal_error", "enum"):
        expected = expected or str(context["expected"])
    elif kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        expected = expected or words.format(context[name])
    elif kind == "string_type":
        expected = expected or "text"
    elif kind.partition("_")[0] in _KINDS:
        expected = expected or _KINDS[kind.partition("_")[0]]
    if not expected:
        message = str(fault["msg"])
        return message[:1].lower() + message[1:]
    return f"{_quoted(fault['input'])} is not {expected}" if "input" in fault else f"it is not {expected}"


_BOUNDS: Final = {
    "greater_than_equal": ("ge", "{} or more"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "{} or less"),
    "less_than": ("lt", "less than {}"),
}


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Path to the first fault in a document (empty: the whole of it), and pydantic's own words for it."""
    first = error.errors(include_url=False)[0]
    return ".".join(str(step) for step in first["loc"]), first["msg"]


def explained(error: ValidationError) -> str:
    """All faults of an error as one sentence, each with the path to what is wrong. Inputs are not quoted."""
    told = []
    for fault in error.errors(include_url=False, include_input=False):
        where = ".".join(str(step) for step in fault["loc"]) or error.title
        told.append(f"{where}: {fault_text(fault)}")
    return "; ".join(told) + "."


def _quoted(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}…"
