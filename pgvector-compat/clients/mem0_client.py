"""mem0's pgvector store on an encrypted payload.  Argument: the database's URL, plain and encrypted."""

import sys
from uuid import UUID

import psycopg
from mem0.vector_stores.pgvector import PGVector
from psycopg_pool import ConnectionPool
from twins import PROTECTED, Cases

MEMORIES = [
    ({"user_id": "u1", "data": "Likes tea", "text_lemmatized": "like tea", "age": 52, "tags": "a,b", "ok": True}, [1.0, 2.0, 3.0]),
    ({"user_id": "u2", "data": "Likes coffee", "text_lemmatized": "like coffee", "age": 34}, [3.0, 1.0, 2.0]),
    ({"user_id": "u1", "data": "Hates 100% tea", "text_lemmatized": "hate tea", "age": 7.5}, [2.0, 2.0, 1.0]),
    ({"user_id": "O'Connor", "data": "None", "text_lemmatized": "none", "age": 40}, [1.0, 1.0, 1.0]),
]
FILTERS = {
    "equal": {"user_id": "u1"},
    "boolean": {"ok": True},
    "number": {"age": 34},
    "two": {"user_id": "u1", "age": {"gt": 10}},
    "list": {"user_id": ["u1", "O'Connor"]},
    "eq": {"user_id": {"eq": "u2"}},
    "ne": {"user_id": {"ne": "u2"}},
    "gt": {"age": {"gt": 34}},
    "gte": {"age": {"gte": 34}},
    "lt": {"age": {"lt": 34}},
    "lte": {"age": {"lte": 34}},
    "range": {"age": {"gt": 10, "lt": 50}},
    "in": {"user_id": {"in": ["u2", "x"]}},
    "nin": {"user_id": {"nin": ["u2", "x"]}},
    "contains": {"data": {"contains": "100%"}},
    "icontains": {"data": {"icontains": "TEA"}},
    "exists": {"ok": "*"},
    "or": {"$or": [{"user_id": "u2"}, {"age": {"lt": 10}}]},
    "not": {"$not": [{"user_id": "u1"}]},
    "nested": {"$or": [{"user_id": "u1", "age": {"gt": 10}}, {"$not": [{"age": {"gt": 10}}]}]},
}
NAMES = [str(UUID(int=number + 1)) for number in range(len(MEMORIES))]
cases = Cases("mem0")


def seen(found):
    return [(memory.id, memory.score and round(memory.score, 6), memory.payload) for memory in found]


def keywords(store, *arguments, **filters):
    """It says None where the database said no."""
    found = store.keyword_search(*arguments, **filters)
    if found is None:
        raise ValueError("keyword_search failed")
    return seen(found)


cases.add("get", lambda store: store.get(NAMES[0]).payload)
cases.add("search", lambda store: seen(store.search("", [1.0, 2.0, 2.5], top_k=3)))
cases.add("list", lambda store: sorted(map(str, seen(store.list()[0]))))
cases.add("columns", lambda store: store.col_info()["count"])
cases.add("keywords", lambda store: keywords(store, "tea"))
for name, filters in FILTERS.items():
    cases.add("search_" + name, lambda store, filters=filters: seen(store.search("", [1.0, 2.0, 2.5], filters=filters)))
    cases.add("list_" + name, lambda store, filters=filters: sorted(map(str, seen(store.list(filters)[0]))))
    cases.add("keywords_" + name, lambda store, filters=filters: keywords(store, "tea", filters=filters))


@cases
def update(store):
    store.update(NAMES[0], vector=[1.0, 1.0, 1.0], payload={"user_id": "u3"})
    return seen(store.list({"user_id": "u3"})[0])


@cases
def delete(store):
    store.delete(NAMES[1])
    return store.get(NAMES[1])


def opened(url, encrypted):
    if encrypted and not PROTECTED:
        made = PGVector(None, "memories", 3, None, None, None, None, False, True, connection_string=url)
        made._ensure_collection()
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("DROP INDEX memories_text_lemmatized_idx")  # of words in clear
            db.execute("CALL pgseal.encrypt_column('memories', 'payload', 'clients')")
    # pgseal: begin
    pool = ConnectionPool(url, configure=(lambda db: (db.execute("SET pgseal.reveal = on"), db.commit())) if encrypted else None, open=True)
    # pgseal: end
    store = PGVector(None, "memories", 3, None, None, None, None, False, True, connection_pool=pool)
    store.insert([vector for _, vector in MEMORIES], [payload for payload, _ in MEMORIES], NAMES)
    return store


sys.exit(not cases.compare(opened(sys.argv[1], False), opened(sys.argv[2], True)))
