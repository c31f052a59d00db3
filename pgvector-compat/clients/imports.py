"""Imports as ../python/README.md writes them down, from real clients where they run inside Python: imports.py CONNECTION stores|vecs"""

import json
import pathlib
import subprocess
import sys
import tempfile
import uuid
from types import SimpleNamespace

import psycopg

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
from pgseal.load import Fields, RowError, create, load, read  # noqa: E402

DSN = sys.argv[1]
TEXTS = ["Chest pain since Monday.", "Wheezes at night, O'Connor said: \"often\".", "Zoë\t— no complaints\\ today"]
ROWS = [
    {"id": str(uuid.UUID(int=n + 1)), "vector": [n + 1.0, 2.5, -3.0], "metadata": {"name": f"patient-{n}", "tags": ["a", n], "text": TEXTS[n % 3]}}
    for n in range(25)
]
connection = psycopg.connect(DSN, autocommit=True)


def stored(table: str) -> list:
    return connection.execute(
        f"SELECT id::text, pgseal.decrypt(embedding)::text, pgseal.decrypt(body), pgseal.decrypt(metadata) FROM {table} ORDER BY id"
    ).fetchall()


def expected(without: tuple = ()) -> list:
    return [
        (r["id"], json.dumps(r["vector"]).replace(" ", "").replace(".0", ""), r["metadata"]["text"], {k: v for k, v in r["metadata"].items() if k not in without})
        for r in ROWS
    ]


def made(table: str) -> None:
    create(connection, table, "patients", 3)


def blocks() -> list[str]:
    text = (HERE.parent / "python" / "README.md").read_text().split("## Imports")[1].split("\n## ")[0]
    return [block.split("```")[0] for block in text.split("```python\n")[1:]]


def qdrant_client():
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection("notes", vectors_config=models.VectorParams(size=3, distance=models.Distance.EUCLID))
    client.upsert("notes", [models.PointStruct(id=r["id"], vector=r["vector"], payload=r["metadata"]) for r in ROWS])
    return client


def chroma_collection():
    import chromadb
    from chromadb.config import Settings

    collection = chromadb.EphemeralClient(Settings(anonymized_telemetry=False)).create_collection("notes", embedding_function=None)
    collection.add(
        ids=[r["id"] for r in ROWS],
        embeddings=[r["vector"] for r in ROWS],
        documents=[r["metadata"]["text"] for r in ROWS],
        # It takes no lists of mixed types.
        metadatas=[{"name": r["metadata"]["name"], "text": r["metadata"]["text"]} for r in ROWS],
    )
    return collection


class Batches:
    def __init__(self, rows: list):
        self.waiting = [rows[:20], rows[20:], []]

    def next(self) -> list:
        return self.waiting.pop(0)

    def close(self) -> None:
        pass


def stand_ins() -> dict:
    of_id = {r["id"]: SimpleNamespace(values=r["vector"], metadata=r["metadata"]) for r in ROWS}
    pinecone = SimpleNamespace(
        list=lambda: iter([list(of_id)[:10], list(of_id)[10:]]),
        fetch=lambda ids: SimpleNamespace(vectors={id: of_id[id] for id in ids}),
    )
    objects = [SimpleNamespace(uuid=uuid.UUID(r["id"]), vector={"default": r["vector"]}, properties=r["metadata"]) for r in ROWS]
    milvus = SimpleNamespace(query_iterator=lambda *_, **__: Batches([{"id": r["id"], "vector": r["vector"], **r["metadata"]} for r in ROWS]))
    return {"pinecone": pinecone, "weaviate": SimpleNamespace(iterator=lambda include_vector: iter(objects)), "milvus": milvus}


def recipes() -> None:
    names = {"connection": connection, "qdrant": qdrant_client(), "chroma": chroma_collection(), **stand_ins()}
    for table in ("qdrant", "chroma", "pinecone", "weaviate", "milvus"):
        made(f"from_{table}")
    found = blocks()
    assert len(found) == 6, len(found)
    for block in found:
        exec(block, names)  # noqa: S102: of this repository
    for table, without in (("qdrant", ()), ("chroma", ("tags",)), ("pinecone", ()), ("weaviate", ()), ("milvus", ("text",))):
        assert stored(f"from_{table}") == expected(without), (table, stored(f"from_{table}")[:1], expected(without)[:1])


def command(*arguments: str, fails: str = "") -> str:
    ran = subprocess.run([sys.executable, "-m", "pgseal.load", "--dsn", DSN, *arguments], cwd=HERE.parent / "python", capture_output=True, text=True)
    assert (ran.returncode != 0) == bool(fails), ran.stderr
    assert fails in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
    return ran.stdout


def files(folder: pathlib.Path) -> None:
    import pyarrow
    import pyarrow.parquet

    lines = folder / "export.jsonl"
    lines.write_text("".join(json.dumps({**r, "text": r["metadata"]["text"]}) + "\n" for r in ROWS))
    said = command(str(lines), "--table", "of_lines", "--create", "patients", "--dimensions", "3")
    assert said.endswith(": 25 rows\n") and stored("of_lines") == expected(), said
    assert command(str(lines), "--table", "of_lines", "--conflict", "skip").endswith(": 0 rows\n")
    assert command(str(lines), "--table", "of_lines", "--conflict", "update", "--batch", "7").endswith(": 25 rows\n")
    command(str(lines), "--table", "of_lines", fails="duplicate key")
    assert stored("of_lines") == expected()

    # As Pinecone's import takes it: metadata is JSON text.
    parquet = folder / "part.parquet"
    columns = {
        "id": [r["id"] for r in ROWS],
        "values": pyarrow.array([r["vector"] for r in ROWS], pyarrow.list_(pyarrow.float32())),
        "metadata": [json.dumps(r["metadata"]) for r in ROWS],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), parquet, row_group_size=10)
    made("of_parquet")
    command(str(parquet), "--table", "of_parquet", "--vector", "values", "--text", "")
    assert [(row[0], row[3]) for row in stored("of_parquet")] == [(row[0], row[3]) for row in expected()]

    # What is wrong is told without the value.
    for line, fails in (
        ({"vector": [1, 2, 3]}, "row 1: it has no field id"),
        ({"id": "x", "vector": {"dense": [1]}}, "row 1: its vector is not a list of numbers"),
        ({"id": "x", "vector": ["canary", 2, 3]}, "row 1: its vector is not a list of numbers"),
        ({"id": "x", "vector": [1, 2]}, "expected 3 dimensions, not 2"),
        ({"id": "x", "vector": [1, 2, 3], "metadata": "{canary"}, "row 1: its metadata is text that is not JSON"),
    ):
        lines.write_text(json.dumps(line) + "\n")
        command(str(lines), "--table", "of_lines", fails=fails)
    lines.write_text("{canary")
    command(str(lines), "--table", "of_lines", fails="a line is not JSON")
    lines.write_text("")
    command(str(lines), "--table", "nowhere", fails="there is no table nowhere")
    connection.execute("CREATE TABLE slip (id text PRIMARY KEY, embedding vector(3), body text, metadata jsonb)")
    command(str(lines), "--table", "slip", fails="does not encrypt")
    try:
        list(load(connection, [{"id": "x", "vector": [1, 2, 3], "metadata": b"\xff"}], "of_lines") for _ in range(1))
        raise AssertionError("bytes went in")
    except RowError as error:
        assert "row 1" in str(error)
    assert [row["id"] for row in read(str(parquet))] == [r["id"] for r in ROWS] and Fields().names["id"] == "id"


def vecs_collection() -> None:
    import vecs

    host = DSN.split("host=")[1].split()[0]
    database = DSN.split("dbname=")[1].split()[0]
    client = vecs.create_client(f"postgresql+psycopg2://postgres@/{database}?host={host}")
    notes = client.get_or_create_collection("notes", dimension=3)
    notes.upsert([(r["id"], r["vector"], r["metadata"]) for r in ROWS])
    before = notes.query([1.0, 2.5, -3.0], limit=5, measure="l2_distance")
    client.disconnect()
    connection.execute("CALL pgseal.encrypt_table('vecs.notes', keyring => 'patients', columns => '{metadata}')")
    kinds = connection.execute("SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'vecs.notes'::regclass AND attname = 'metadata'")
    assert kinds.fetchone()[0].endswith("encrypted_jsonb")
    client = vecs.create_client(f"postgresql+psycopg2://postgres@/{database}?host={host}")
    notes = client.get_or_create_collection("notes", dimension=3)
    assert notes.query([1.0, 2.5, -3.0], limit=5, measure="l2_distance") == before
    client.disconnect()


if sys.argv[2] == "stores":
    recipes()
    with tempfile.TemporaryDirectory() as folder:
        files(pathlib.Path(folder))
    print(f"imported {len(ROWS)} rows each from Qdrant, Chroma, stand-ins of three others, and files")
else:
    vecs_collection()
    print("encrypted a collection of vecs")
