"""The files of schemas/ that are made from others, so that a client without Python finds all it needs."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from bus import copying, errors, models, payloads

RECORDS = (
    models.Message,
    models.Agent,
    models.Session,
    models.StateValue,
    models.Checkpoint,
    models.Milestone,
    models.Lifecycle,
)

HEAD = """-- Made by bin/generate from schemas/messages/*.json; do not edit.
--
-- The message types with their payload schemas, each compiled into a check that holds for every writer.
"""


def files(schemas: Path) -> dict[str, str]:
    """Path below schemas/ and text of each made file."""
    made = {**copying.texts(), "errors.tsv": errors.catalog_tsv(), **payload_checks(schemas / "messages")}
    for record in RECORDS:
        made[f"records/{record.__name__.lower()}.json"] = json.dumps(_schema(record), indent=2) + "\n"
    return made


def _schema(record: type) -> dict[str, Any]:
    schema = msgspec.json.schema(record)
    for part in schema["$defs"].values():
        part["description"] = inspect.cleandoc(part["description"])  # as Python 3.13 keeps it, and those before do not
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def payload_checks(folder: Path) -> dict[str, str]:
    """The migration that seeds the message types, for each database."""
    made = {"sqlite": HEAD, "postgres": HEAD}
    for path in sorted(folder.glob("*.json")):
        schema = json.loads(path.read_text("utf-8"))
        values = (path.stem, schema["description"], json.dumps(schema, separators=(",", ":")))
        row = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
        for dialect, check in payloads.triggers(path.stem, schema).items():
            made[dialect] += f"\ninsert into message_types (name, description, schema) values ({row});\n{check};\n"
    return {f"{dialect}/0002_payloads.sql": text for dialect, text in made.items()}


if __name__ == "__main__":
    for name, text in files(Path(sys.argv[1])).items():
        Path(sys.argv[1], name).write_text(text, "utf-8")
        print(name)
