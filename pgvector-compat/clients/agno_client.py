"""agno's PgVector on encrypted metadata and content.  Argument: the database's URL, plain and encrypted."""

import sys

from agno.filters import AND, EQ, GT, IN, LT, NOT, OR
from agno.knowledge.document import Document
from agno.knowledge.embedder.base import Embedder
from agno.vectordb.pgvector import PgVector
from sqlalchemy import create_engine, event, text
from twins import PROTECTED, Cases


class Lengths(Embedder):
    """Stands in for a model: texts of like length are alike."""

    def get_embedding(self, text):
        return [len(text) + 0.0, len(text) % 7 + 1.0, len(text) % 3 + 1.0]

    def get_embedding_and_usage(self, text):
        return self.get_embedding(text), None


NOTES = [
    ("n1", "Chest pain since Monday.", {"p": "John Smith", "age": 52, "ward": {"floor": 2}}),
    ("n2", "Seasonal asthma, better.", {"p": "Mary Jones", "age": 34}),
    ("n3", "Chest follow-up in two weeks.", {"p": "John Smith", "age": 53}),
    ("n4", "Nothing to report.", {"p": "O'Connor", "age": 7}),
]
FILTERS = {
    "none": None,
    "key": {"p": "John Smith"},
    "two_keys": {"p": "John Smith", "age": 53},
    "nested": {"ward": {"floor": 2}},
    "EQ": [EQ("p", "John Smith")],
    "IN": [IN("p", ["Mary Jones", "O'Connor"])],
    "GT": [GT("age", 34)],
    "LT": [LT("age", 34)],
    "AND": [AND(EQ("p", "John Smith"), GT("age", 52))],
    "OR": [OR(EQ("p", "Mary Jones"), LT("age", 10))],
    "NOT": [NOT(EQ("p", "John Smith"))],
}
cases = Cases("agno")


class Subject:
    """A store, and the errors of its engine, which it logs and answers with nothing."""

    def __init__(self, engine, encrypted):
        self.engine, self.errors = engine, []
        self.store = PgVector("notes", schema="public", db_engine=engine, embedder=Lengths(dimensions=3), create_schema=False)
        self.store.create()
        for column in ["meta_data", "filters", "content"] if encrypted and not PROTECTED else []:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                if column != "content":
                    connection.execute(text(f"ALTER TABLE notes ALTER {column} DROP DEFAULT"))
                connection.execute(text("CALL pgseal.encrypt_column('notes', :column, 'clients')"), {"column": column})
        event.listen(engine, "handle_error", lambda context: self.errors.append(context.original_exception))
        self.fill()

    def fill(self):
        self.store.delete()
        for name, words, metadata in NOTES:
            document = Document(id=name, name=name, content=words, meta_data=metadata, content_id="c" + name)
            self.store.insert("hash" + name, [document], filters=metadata)

    def ask(self, question):
        self.errors.clear()
        answer = question(self.store)
        if self.errors:
            raise self.errors[0]
        return answer


def seen(documents):
    return [(found.name, found.content, str({key: round(value, 6) if key == "similarity_score" else value for key, value in found.meta_data.items()})) for found in documents]


for name, filters in FILTERS.items():
    for kind in ["vector_search", "keyword_search", "hybrid_search"]:
        cases.add(f"{kind}_{name}", lambda subject, kind=kind, filters=filters: subject.ask(lambda store: seen(getattr(store, kind)("Chest", limit=3, filters=filters))))


def changed(name, change):
    """What `change` returns and leaves; then the notes are as before."""

    def run(subject):
        try:
            returned = subject.ask(change)
            with subject.engine.connect() as connection:
                left = connection.execute(text("SELECT id, name, content, meta_data, filters FROM notes ORDER BY id")).all()
            return returned, str(left)
        finally:
            subject.fill()

    cases.add(name, run)


again = Document(id="n1", name="n1", content="again", meta_data={"p": "x"}, content_id="cn1")
changed("upsert", lambda store: store.upsert("hashn1", [again], filters={"p": "x"}))
changed("update_metadata", lambda store: store.update_metadata("cn1", {"seen": True}))
changed("delete_by_id", lambda store: store.delete_by_id("n1"))
changed("delete_by_name", lambda store: store.delete_by_name("n2"))
changed("delete_by_metadata", lambda store: store.delete_by_metadata({"p": "John Smith"}))
changed("delete_by_content_id", lambda store: store.delete_by_content_id("cn3"))
cases.add("name_exists", lambda subject: subject.ask(lambda store: (store.name_exists("n1"), store.content_hash_exists("hashn1"))))
cases.add("count", lambda subject: subject.ask(lambda store: store.get_count()))


def engine(url, encrypted):
    engine = create_engine(url)
    if encrypted:
        # pgseal: begin
        @event.listens_for(engine, "connect")
        def reveal(connection, _):
            connection.execute("SET pgseal.reveal = on")
            connection.commit()

        # pgseal: end
    return engine


sys.exit(not cases.compare(Subject(engine(sys.argv[1], False), False), Subject(engine(sys.argv[2], True), True)))
