"""JSON Schemas of all events and records, for readers in other languages, and the check that keeps old ones true.

`python -m schemas.export` writes `schemas/json/`; it refuses a change after which a document that was right before
would no longer be read. Such a change needs a new `schema_version` beside the old one. This is the one place of
the room that writes files, and only when it is run as a program.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from schemas.events import EVENT_TYPES
from schemas.records import (
    DeadLetter,
    ExhibitionSettings,
    Membership,
    MusicRecord,
    MusicRequest,
    PairingRevision,
    PairingSnapshot,
    Result,
    Revision,
    Tombstone,
)

FOLDER: Final = Path(__file__).resolve().parent / "json"

RECORDS: Final[tuple[type[BaseModel], ...]] = (
    Revision,
    Membership,
    Result,
    DeadLetter,
    Tombstone,
    ExhibitionSettings,
    PairingRevision,
    PairingSnapshot,
    MusicRequest,
    MusicRecord,
)
"""Every kind of JSON object in the object store."""

Schema = Mapping[str, Any]


def exported() -> dict[str, dict[str, Any]]:
    """File name below `schemas/json/` -> JSON Schema, of all events and records as they are now."""
    found: dict[str, dict[str, Any]] = {}
    for folder, models in (("events", EVENT_TYPES), ("records", RECORDS)):
        for model in models:
            found[f"{folder}/{model.__name__}.json"] = {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                # As read: a field with a default may be missing.
                **model.model_json_schema(mode="validation"),
            }
    return found


def text_of(schema: Schema) -> str:
    """As it lies in the file."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Ways in which a document that fits the old schema may not fit the new one, in plain words; empty: none.

    It knows the words that pydantic uses. Where it cannot tell, it says that something changed.
    """
    return list(_differences(old, new, old, new, "document", ()))


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        place: Any = root
        for step in str(schema["$ref"]).removeprefix("#/").split("/"):
            place = place[step]
        schema = place
    return schema


_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EQUAL: Final = ("pattern", "format", "uniqueItems", "multipleOf")


def _differences(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, where: str, path: tuple[tuple[str, str], ...]
) -> Iterator[str]:
    # A schema that refers to itself is compared once.
    here = (str(old.get("$ref")), str(new.get("$ref")))
    if "$ref" in old and here in path:
        return
    path = (*path, here)
    old, new = _resolved(old, old_root), _resolved(new, new_root)
    choices = _choices(old), _choices(new)
    if len(choices[0]) > 1 or len(choices[1]) > 1:
        for number, one in enumerate(choices[0], 1):
            if not any(not list(_differences(one, other, old_root, new_root, where, path)) for other in choices[1]):
                yield f"{where}: alternative {number} ({_name(one)}) is not accepted any more"
        return
    yield from _value_differences(old, new, where)
    yield from _object_differences(old, new, old_root, new_root, where, path)
    yield from _array_differences(old, new, old_root, new_root, where, path)


def _choices(schema: Schema) -> Sequence[Schema]:
    return schema.get("anyOf") or schema.get("oneOf") or [schema]


def _name(schema: Schema) -> str:
    return str(schema.get("$ref") or schema.get("const") or schema.get("type") or "anything")


def _types(schema: Schema) -> set[str]:
    found = schema.get("type")
    types = {found} if isinstance(found, str) else set(found or ())
    return types | {"integer"} if "number" in types else types


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _value_differences(old: Schema, new: Schema, where: str) -> Iterator[str]:
    if _types(new) and not (_types(old) and _types(old) <= _types(new)):
        yield f"{where}: the type was {sorted(_types(old)) or 'any'} and is {sorted(_types(new))}"
    before, after = _values(old), _values(new)
    if after is not None:
        lost = "any value" if before is None else [each for each in before if each not in after]
        if lost:
            yield f"{where}: no longer allowed: {lost}"
    for words, tighter in ((_LOWER, max), (_UPPER, min)):
        for word in words:
            if word in new and (word not in old or tighter(old[word], new[word]) != old[word]):
                yield f"{where}: {word} was {old.get(word, 'free')} and is {new[word]}"
    for word in _EQUAL:
        if word in new and new[word] != old.get(word):
            yield f"{where}: {word} was {old.get(word, 'free')} and is {new[word]}"


def _object_differences(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, where: str, path: tuple[tuple[str, str], ...]
) -> Iterator[str]:
    for name in new.get("required", ()):
        if name not in old.get("required", ()):
            yield f"{where}: {name} is required now"
    for name, before in old.get("properties", {}).items():
        after = new.get("properties", {}).get(name)
        if after is None:
            yield f"{where}: {name} was removed"
        else:
            yield from _differences(before, after, old_root, new_root, f"{where}.{name}", path)
    before, after = old.get("additionalProperties", True), new.get("additionalProperties", True)
    if after is False and before is not False:
        yield f"{where}: further fields are no longer allowed"
    elif isinstance(after, Mapping):
        if isinstance(before, Mapping):
            yield from _differences(before, after, old_root, new_root, f"{where}.*", path)
        elif before is True and after:
            yield f"{where}: the values of further fields are no longer free"


def _array_differences(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, where: str, path: tuple[tuple[str, str], ...]
) -> Iterator[str]:
    before, after = old.get("prefixItems", []), new.get("prefixItems", [])
    for number, item in enumerate(after):
        known = before[number] if number < len(before) else old.get("items", {})
        yield from _differences(known, item, old_root, new_root, f"{where}[{number}]", path)
    if isinstance(new.get("items"), Mapping):
        for number, item in enumerate(before[len(after) :], len(after)):
            yield from _differences(item, new["items"], old_root, new_root, f"{where}[{number}]", path)
        if isinstance(old.get("items"), Mapping) or not before:
            yield from _differences(old.get("items", {}), new["items"], old_root, new_root, f"{where}[]", path)


def main() -> int:
    """Write `schemas/json/`. Where a change would break old documents nothing is written; exit status 1."""
    now = exported()
    problems: list[str] = []
    for name, schema in now.items():
        path = FOLDER / name
        if path.exists():
            problems += [f"{name}: {each}" for each in breaking_changes(json.loads(path.read_text()), schema)]
    present = {
        str(path.relative_to(FOLDER)) for folder in ("events", "records") for path in FOLDER.glob(f"{folder}/*")
    }
    problems += [f"{name}: it is gone" for name in sorted(present - set(now))]
    if problems:
        print("These changes would break documents that exist; give them a new schema_version:", file=sys.stderr)
        print("\n".join(f"  {each}" for each in problems), file=sys.stderr)
        return 1
    for name, schema in now.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(schema))
    print(f"wrote {len(now)} schemas to {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
