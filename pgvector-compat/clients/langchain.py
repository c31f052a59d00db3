"""LangChain's PGVector on encrypted metadata and chunk text.  Argument: the database's URL, plain and encrypted."""

import sys

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGVector
from sqlalchemy import create_engine, event

NOTES = [
    ("n1", "Chest pain since Monday.", {"patient": "John Smith", "age": 52, "urgent": True, "ward": "B2"}),
    ("n2", "Seasonal asthma, better.", {"patient": "Mary Jones", "age": 34, "urgent": False, "ward": "a1"}),
    ("n3", "Follow-up in two weeks.", {"patient": "John Smith", "age": 52.5, "ward": "B1"}),
    ("n4", "Nothing to report.", {"patient": "O'Connor", "age": 7}),
]

FILTERS = [
    {"patient": "John Smith"},
    {"patient": {"$eq": "O'Connor"}},
    {"patient": {"$ne": "John Smith"}},
    {"age": {"$lt": 50}},
    {"age": {"$lte": 52}},
    {"age": {"$gt": 34}},
    {"age": {"$gte": 34}},
    {"age": {"$between": (30, 52)}},
    {"patient": {"$in": ["Mary Jones", "O'Connor"]}},
    {"patient": {"$nin": ["Mary Jones", "O'Connor"]}},
    {"ward": {"$like": "B%"}},
    {"ward": {"$ilike": "A%"}},
    {"urgent": {"$exists": True}},
    {"urgent": {"$exists": False}},
    {"urgent": True},
    {"$or": [{"patient": "Mary Jones"}, {"age": {"$lt": 10}}]},
    {"$and": [{"patient": "John Smith"}, {"ward": "B1"}]},
    {"$not": {"patient": "John Smith"}},
]


class Lengths(Embeddings):
    """Stands in for a model: texts of like length are alike."""

    def embed_query(self, text):
        return [len(text), len(text) % 7 + 1.0, len(text) % 3 + 1.0]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


def plain_engine(url):
    return create_engine(url)


def encrypted_engine(url):
    engine = create_engine(url)

    # pgseal: begin
    @event.listens_for(engine, "connect")
    def reveal(connection, _):
        connection.execute("SET pgseal.reveal = on; SET search_path = public, pgseal")
        connection.commit()

    # pgseal: end
    return engine


def answers(engine):
    store = PGVector(Lengths(), collection_name="notes", connection=engine, create_extension=False, embedding_length=3)
    documents = [Document(page_content=text, metadata=metadata) for _, text, metadata in NOTES]
    ids = [name for name, _, _ in NOTES]
    store.add_documents(documents, ids=ids)

    def search(filter):
        found = store.similarity_search("Chest pain since Tuesday.", k=10, filter=filter)
        return [(document.id, document.page_content, document.metadata) for document in found]

    seen = [search(filter) for filter in [None, *FILTERS]]
    changed = Document(page_content="Nothing to report, again.", metadata={"patient": "O'Connor", "age": 8})
    store.add_documents([changed], ids=["n4"])
    seen.append(search({"patient": "O'Connor"}))
    store.delete(["n1"])
    seen.append(search({"patient": "John Smith"}))
    seen.append([(document.id, document.page_content) for document in store.get_by_ids(["n2", "n4"])])
    return seen


plain, encrypted = answers(plain_engine(sys.argv[1])), answers(encrypted_engine(sys.argv[2]))
for filter, one, other in zip([None, *FILTERS, "upsert", "delete", "get"], plain, encrypted):
    assert one == other, (filter, one, other)
    assert one, filter
print(f"{len(plain)} searches, all as on plain columns")
