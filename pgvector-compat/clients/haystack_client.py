"""Haystack's PgvectorDocumentStore on encrypted metadata, and on encrypted metadata and content.  Argument: the database's URL, plain and encrypted."""

import asyncio
import sys

import psycopg
from haystack import Document
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret
from haystack_integrations.components.retrievers.pgvector import PgvectorEmbeddingRetriever, PgvectorKeywordRetriever
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore
from twins import PROTECTED, Cases


class Revealing(PgvectorDocumentStore):
    # pgseal: begin
    def _create_connection(self):
        return psycopg.connect(self.connection_string.resolve_value(), autocommit=True).execute("SET pgseal.reveal = on").connection

    # pgseal: end

    async def _create_connection_async(self):
        connection = await psycopg.AsyncConnection.connect(self.connection_string.resolve_value(), autocommit=True)
        await connection.execute("SET pgseal.reveal = on")
        return connection


DOCUMENTS = [
    ("n1", "Chest pain since Monday.", {"p": "John Smith", "age": 52, "at": "2024-05-01T10:00:00", "tags": ["a", "b"], "ok": True}, [1.0, 2.0, 3.0]),
    ("n2", "Seasonal asthma, better.", {"p": "Mary Jones", "age": 34, "at": "2024-06-01T10:00:00", "tags": ["b"], "ok": False}, [3.0, 1.0, 2.0]),
    ("n3", "Chest follow-up.", {"p": "John Smith", "age": 53, "score": 0.5, "tags": []}, [2.0, 2.0, 1.0]),
    ("n4", "Nothing to report.", {"p": "O'Connor", "age": 7, "score": 1.5}, [1.0, 1.0, 1.0]),
    ("n5", None, {}, [0.0, 1.0, 0.0]),
]
cases = Cases("haystack")


def seen(documents):
    return sorted((found.id, found.content, str(found.meta)) for found in documents)


def fill(store):
    store.delete_all_documents()
    store.write_documents([Document(id=i, content=text, meta=meta, embedding=vector) for i, text, meta, vector in DOCUMENTS])


def field(name, operator, value):
    return {"field": name, "operator": operator, "value": value}


def both(operator, *conditions):
    return {"operator": operator, "conditions": list(conditions)}


FILTERS = {
    "equal": field("meta.p", "==", "John Smith"),
    "equal_number": field("meta.age", "==", 52),
    "equal_boolean": field("meta.ok", "==", True),
    "equal_none": field("meta.score", "==", None),
    "not_equal": field("meta.p", "!=", "John Smith"),
    "not_equal_none": field("meta.score", "!=", None),
    "greater": field("meta.age", ">", 34),
    "greater_equal": field("meta.age", ">=", 34),
    "less": field("meta.age", "<", 34),
    "less_equal": field("meta.age", "<=", 34),
    "greater_float": field("meta.score", ">", 0.7),
    "greater_date": field("meta.at", ">", "2024-05-15T00:00:00"),
    "less_date": field("meta.at", "<=", "2024-05-15T00:00:00"),
    "in": field("meta.p", "in", ["Mary Jones", "O'Connor"]),
    "in_numbers": field("meta.age", "in", [7, 52]),
    "not_in": field("meta.p", "not in", ["Mary Jones", "O'Connor"]),
    "like": field("meta.p", "like", "John%"),
    "not_like": field("meta.p", "not like", "John%"),
    "array_contains": field("meta.tags", "array_contains", ["b"]),
    "array_overlaps": field("meta.tags", "array_overlaps", ["a", "x"]),
    "content": field("content", "==", "Chest follow-up."),
    "content_like": field("content", "like", "Chest%"),
    "content_in": field("content", "in", ["Chest follow-up.", "x"]),
    "and": both("AND", field("meta.p", "==", "John Smith"), field("meta.age", ">", 52)),
    "or": both("OR", field("meta.p", "==", "Mary Jones"), field("meta.age", "<", 10)),
    "nested": both("AND", field("meta.age", ">", 5), both("OR", field("meta.p", "==", "O'Connor"), field("meta.ok", "==", True))),
}
JOHN = FILTERS["equal"]

cases.add("all", lambda store: seen(store.filter_documents()))
for name, filters in FILTERS.items():
    cases.add("filter_" + name, lambda store, filters=filters: seen(store.filter_documents(filters)))
    cases.add("nearest_" + name, lambda store, filters=filters: [(d.id, round(d.score, 6)) for d in store._embedding_retrieval([1.0, 2.0, 2.5], filters=filters)])
cases.add("count", lambda store: store.count_documents())
cases.add("count_by_filter", lambda store: store.count_documents_by_filter(JOHN))
cases.add("retriever", lambda store: [d.id for d in PgvectorEmbeddingRetriever(document_store=store, top_k=2).run([1.0, 2.0, 3.0])["documents"]])
for function in ["inner_product", "l2_distance"]:
    cases.add(function, lambda store, function=function: [(d.id, round(d.score, 6)) for d in store._embedding_retrieval([1.0, 2.0, 2.5], vector_function=function)])
cases.add("keyword", lambda store: [(d.id, round(d.score, 6)) for d in PgvectorKeywordRetriever(document_store=store).run("chest pain")["documents"]])
cases.add("keyword_filtered", lambda store: [d.id for d in store._keyword_retrieval("chest", filters=FILTERS["equal_number"])])
cases.add("fields", lambda store: store.get_metadata_fields_info())
cases.add("unique_count", lambda store: store.count_unique_metadata_by_filter(filters={}, metadata_fields=["p", "age"]))
cases.add("unique_count_filtered", lambda store: store.count_unique_metadata_by_filter(filters=JOHN, metadata_fields=["p", "age"]))
for key in ["p", "age", "score", "ok"]:
    cases.add("min_max_" + key, lambda store, key=key: store.get_metadata_field_min_max(key))
cases.add("unique_values", lambda store: store.get_metadata_field_unique_values("p"))
cases.add("unique_numbers", lambda store: store.get_metadata_field_unique_values("age", size=2))
cases.add("unique_searched", lambda store: store.get_metadata_field_unique_values("p", search_term="smith"))


def changed(name, change):
    """What `change` returns and leaves; then the documents are as before."""

    def run(store):
        try:
            return change(store), seen(store.filter_documents())
        finally:
            fill(store)

    cases.add(name, run)


again = Document(id="n1", content="again", meta={"p": "x"}, embedding=[1.0, 1.0, 2.0])
changed("overwrite", lambda store: store.write_documents([again], policy=DuplicatePolicy.OVERWRITE))
changed("skip", lambda store: store.write_documents([again], policy=DuplicatePolicy.SKIP))
changed("update_by_filter", lambda store: store.update_by_filter(JOHN, {"seen": True}))
changed("delete", lambda store: store.delete_documents(["n1", "n2"]))
changed("delete_by_filter", lambda store: store.delete_by_filter(JOHN))


@cases
def asynchronously(store):
    async def run():
        found = await store.filter_documents_async(JOHN)
        near = await store._embedding_retrieval_async([1.0, 2.0, 2.5], filters=JOHN)
        await store.close_async()
        return seen(found), [document.id for document in near]

    return asyncio.run(run())


def opened(kind, url, table, encrypted=()):
    options = {"connection_string": Secret.from_token(url), "table_name": table, "embedding_dimension": 3, "keyword_index_name": table + "_keywords"}
    if encrypted and not PROTECTED:
        # Haystack makes its table; its index of words in clear has to go, and another of that name keeps it from coming back.
        PgvectorDocumentStore(**options, create_extension=False)._ensure_db_setup()
        with psycopg.connect(url, autocommit=True) as db:
            if "content" in encrypted:
                db.execute(f"DROP INDEX {table}_keywords; CREATE INDEX {table}_keywords ON {table} (id)")
            for column in encrypted:
                db.execute("CALL pgseal.encrypt_column(%s, %s, 'clients')", (table, column))
    store = kind(**options)
    fill(store)
    return store


plain, url = opened(PgvectorDocumentStore, sys.argv[1], "notes"), sys.argv[2]
ok = PROTECTED or cases.compare(plain, opened(Revealing, url, "plain_content", ["meta"]))
cases.suite += ", encrypted content"
ok &= cases.compare(plain, opened(Revealing, url, "no_plain_content", ["meta", "content"]))
sys.exit(not ok)
