"""Loads rows of id, vector, text and metadata into a table whose columns encrypt them as they arrive.

`python -m pgseal.load --help` for files of JSON lines and Parquet; `load` for rows that a client hands out. Nothing is written to
disk here; in the server the rows are sealed before they reach a page.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Fields", "load", "read"]

PARTS = ("id", "vector", "text", "metadata")


class RowError(ValueError):
    """Something about one row; it names the row's number and the field, never a value."""


class Fields:
    """Where a row has its parts: a field's name, or names with dots between them; `*` as metadata is all other fields."""

    def __init__(self, id: str = "id", vector: str = "vector", text: str | None = "text", metadata: str | None = "metadata"):
        self.names = {"id": id, "vector": vector, "text": text, "metadata": metadata}

    def parts(self, row: dict[str, Any]) -> dict[str, Any]:
        found = {part: self._find(part, row) for part in PARTS if self.names[part] not in (None, "*")}
        if found["id"] is None:
            raise RowError(f"it has no field {self.names['id']}")
        if "vector" in found:
            found["vector"] = _vector(found["vector"])
        if self.names["metadata"] == "*":
            taken = {name.split(".")[0] for name in self.names.values() if name}
            found["metadata"] = {name: value for name, value in row.items() if name not in taken}
        elif isinstance(found.get("metadata"), (str, bytes)):
            # As Pinecone's Parquet files have it.
            found["metadata"] = _parsed(found["metadata"])
        return found

    def _find(self, part: str, row: dict[str, Any]) -> Any:
        name = self.names[part] or ""
        if name in row:
            return row[name]
        value: Any = row
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        return value


def _vector(value: Any) -> str | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value = json.loads(value)
        return "[" + ",".join(repr(float(element)) for element in value) + "]"
    except (TypeError, ValueError):
        raise RowError("its vector is not a list of numbers; a named one is given as vectors.NAME") from None


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise RowError("its metadata is text that is not JSON") from None


def _plain(value: Any) -> Any:
    """Of what clients hand out: numbers of NumPy, times, UUIDs."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, bytes):
        raise RowError("its metadata holds bytes")
    return str(value)


def read(path: str, form: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a file of JSON lines (also .gz, or - for the standard input) or of Parquet, one after the other."""
    if form == "parquet" or (form is None and path.endswith((".parquet", ".pq"))):
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1000):
            yield from batch.to_pylist()
        return
    opened = sys.stdin if path == "-" else gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")
    with opened as lines:
        for line in lines:
            if line.strip():
                row = _line(line)
                # A file that is one list, as some exports are.
                yield from row if isinstance(row, list) else [row]


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise RowError("a line is not JSON") from None


def create(connection: Any, table: str, keyring: str, dimensions: int, id_type: str = "text", text: bool = True) -> None:
    """Makes the table, with columns id, embedding, body and metadata, unless it is there."""
    from psycopg import sql

    body = sql.SQL(", body encrypted_text({keyring})").format(keyring=sql.Identifier(keyring)) if text else sql.SQL("")
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {table} (id {id_type} PRIMARY KEY, embedding encrypted_vector({keyring}, {dimensions}),"
            " metadata encrypted_jsonb({keyring}){body})"
        ).format(
            table=_name(table),
            id_type=sql.SQL({"text": "text", "bigint": "bigint", "uuid": "uuid"}[id_type]),
            keyring=sql.Identifier(keyring),
            dimensions=sql.SQL(str(int(dimensions))),
            body=body,
        )
    )


def _name(table: str) -> Any:
    from psycopg import sql

    return sql.Identifier(*table.split("."))


def load(
    connection: Any,
    rows: Iterable[dict[str, Any]],
    table: str,
    fields: Fields | None = None,
    columns: dict[str, str] | None = None,
    conflict: str = "error",
    batch: int = 1000,
) -> int:
    """Puts rows into a table and returns how many went in, committing after each batch.

    `columns` names the table's column for id, vector, text and metadata; those that are left out are not loaded. `conflict` is
    what becomes of a row whose id is there: "error", "skip" or "update".
    """
    fields = fields or Fields()
    columns = columns or {"id": "id", "vector": "embedding", "text": "body", "metadata": "metadata"}
    columns = {part: column for part, column in columns.items() if fields.names[part] is not None}
    _refuse_plain(connection, table, columns)
    total, waiting = 0, []
    for number, row in enumerate(rows, 1):
        try:
            parts = fields.parts(row)
            waiting.append([_field(part, parts.get(part)) for part in columns])
        except RowError as error:
            raise RowError(f"row {number}: {error}") from None
        if len(waiting) == batch:
            total += _copy(connection, table, list(columns.values()), waiting, columns["id"], conflict)
            waiting = []
    return total + (_copy(connection, table, list(columns.values()), waiting, columns["id"], conflict) if waiting else 0)


def _field(part: str, value: Any) -> Any:
    if value is None or part == "vector":
        return value
    if part == "metadata":
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return str(value)


def _refuse_plain(connection: Any, table: str, columns: dict[str, str]) -> None:
    """What is meant to be sealed is not to land in a column of plaintext by a slip."""
    found = dict(
        connection.execute(
            "SELECT attname, atttypid::regtype::text FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [table],
        ).fetchall()
    )
    if not found:
        raise ValueError(f"there is no table {table}: --create makes it")
    for part, column in columns.items():
        if column not in found:
            raise ValueError(f"table {table} has no column {column} for {part}")
        if part in ("text", "metadata") and not found[column].split(".")[-1].startswith("encrypted_"):
            raise ValueError(f"column {column} of {table} is of type {found[column]}, which does not encrypt")


def _copy(connection: Any, table: str, columns: list[str], rows: list[list[Any]], id_column: str, conflict: str) -> int:
    from psycopg import sql

    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    target = _name(table)
    with connection.transaction(), connection.cursor() as cursor:
        into = target
        if conflict != "error":
            # Of the same types, so that what it holds is sealed as well.
            into = sql.Identifier("pg_temp", "pgseal_load")
            cursor.execute(sql.SQL("CREATE TEMPORARY TABLE pgseal_load ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(names, target))
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(into, names)) as copy:
            for row in rows:
                copy.write_row(row)
        if conflict == "error":
            return len(rows)
        others = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column)) for column in columns if column != id_column]
        action = sql.SQL("NOTHING") if conflict == "skip" else sql.SQL("UPDATE SET {}").format(sql.SQL(", ").join(others))
        cursor.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT DISTINCT ON ({}) {} FROM pg_temp.pgseal_load ON CONFLICT ({}) DO {}").format(
                target, names, sql.Identifier(id_column), names, sql.Identifier(id_column), action
            )
        )
        return int(cursor.rowcount)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pgseal.load", description=__doc__)
    parser.add_argument("files", nargs="+", help="JSON lines (also .gz), Parquet, or - for JSON lines from the standard input")
    parser.add_argument("--table", required=True, help="the table, with its schema if need be")
    parser.add_argument("--dsn", default="", help="connection string; else PGHOST, PGDATABASE and the like")
    parser.add_argument("--format", choices=["jsonl", "parquet"], help="where the file's name does not say it")
    for part, name in (("id", "id"), ("vector", "vector"), ("text", "text"), ("metadata", "metadata")):
        parser.add_argument(f"--{part}", default=name, metavar="FIELD", help=f"the row's field with its {part} ({name}); a.b is b in a; '' is none")
    for part, name in (("id", "id"), ("vector", "embedding"), ("text", "body"), ("metadata", "metadata")):
        parser.add_argument(f"--{part}-column", default=name, metavar="COLUMN", help=f"the table's column for it ({name})")
    parser.add_argument("--conflict", choices=["error", "skip", "update"], default="error", help="where a row with the id is there")
    parser.add_argument("--batch", type=int, default=1000, help="rows of one transaction (1000)")
    parser.add_argument("--create", metavar="KEYRING", help="make the table first, with columns of this keyring")
    parser.add_argument("--dimensions", type=int, help="of the vectors, for --create")
    parser.add_argument("--id-type", choices=["text", "bigint", "uuid"], default="text", help="for --create")
    return parser


def main() -> None:
    given = _arguments().parse_args()
    import psycopg

    names: dict[str, Any] = {part: getattr(given, part) or None for part in PARTS}
    if names["id"] is None:
        sys.exit("--id: a row needs one")
    columns = {part: getattr(given, f"{part}_column") for part in PARTS if names[part] is not None}
    if given.create and not given.dimensions:
        sys.exit("--create needs --dimensions")
    try:
        with psycopg.connect(given.dsn, autocommit=True) as connection:
            if given.create:
                create(connection, given.table, given.create, given.dimensions, given.id_type, names["text"] is not None)
            for path in given.files:
                total = load(connection, read(path, given.format), given.table, Fields(**names), columns, given.conflict, given.batch)
                print(f"{path}: {total} rows", flush=True)
    except psycopg.Error as error:
        hint = error.diag.message_hint
        sys.exit(f"{error.diag.message_primary or error}" + (f"\n{hint}" if hint else ""))
    except (RowError, ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
