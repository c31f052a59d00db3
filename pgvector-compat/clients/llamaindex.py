"""LlamaIndex's PGVectorStore on encrypted metadata and chunk text.  Argument: the database's URL, plain and encrypted."""

import sys

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.vector_stores.postgres import PGVectorStore
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine
from twins import PROTECTED

NOTES = [
    ("n1", "Chest pain since Monday.", {"patient": "John Smith", "age": 52, "tags": ["urgent", "ecg"]}, [1.0, 2.0, 3.0]),
    ("n2", "Seasonal asthma, better.", {"patient": "Mary Jones", "age": 34, "tags": ["ecg"]}, [3.0, 1.0, 2.0]),
    ("n3", "Follow-up in two weeks.", {"patient": "John Smith", "age": 53, "tags": []}, [2.0, 2.0, 1.0]),
    ("n4", "Nothing to report.", {"patient": "Anna Brown", "age": 7}, [1.0, 1.0, 1.0]),
]

O = FilterOperator
FILTERS = [
    [("patient", O.EQ, "John Smith")],
    [("age", O.EQ, 52)],
    [("patient", O.NE, "John Smith")],
    [("age", O.GT, 34)],
    [("age", O.LT, 34)],
    [("age", O.GTE, 34)],
    [("age", O.LTE, 34)],
    [("patient", O.GT, "John")],
    [("patient", O.IN, ["Mary Jones", "Anna Brown"])],
    [("patient", O.NIN, ["Mary Jones", "Anna Brown"])],
    [("patient", O.TEXT_MATCH, "Jo")],
    [("patient", O.TEXT_MATCH_INSENSITIVE, "SMITH")],
    [("tags", O.CONTAINS, "ecg")],
    [("tags", O.ANY, ["urgent", "none"])],
    [("tags", O.ALL, ["urgent", "ecg"])],
    [("tags", O.IS_EMPTY, None)],
    [("patient", O.EQ, "John Smith"), ("age", O.GT, 52)],
]


def plain_engine(url):
    return create_engine(url)


def encrypted_engine(url):
    engine = create_engine(url)

    # pgseal: begin
    @event.listens_for(engine, "connect")
    def reveal(connection, _):
        connection.cursor().execute("SET pgseal.reveal = on")
        connection.commit()

    # pgseal: end
    return engine


def answers(engine, setup):
    # Only its synchronous half is used here; the listener would go to async_engine.sync_engine as well.
    store = PGVectorStore(
        engine=engine,
        async_engine=create_async_engine(engine.url.set(drivername="postgresql+asyncpg")),
        table_name="notes",
        embed_dim=3,
        use_jsonb=True,
        perform_setup=setup,
        initialization_fail_on_error=True,
    )
    nodes = []
    for name, text, metadata, embedding in NOTES:
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="document of " + name)}
        nodes.append(TextNode(id_=name, text=text, metadata=metadata, embedding=embedding, relationships=source))
    store.add(nodes)

    def search(filters, condition=FilterCondition.AND):
        made = [MetadataFilter(key=key, operator=operator, value=value) for key, operator, value in filters]
        asked = MetadataFilters(filters=made, condition=condition) if made else None
        found = store.query(VectorStoreQuery(query_embedding=[1.0, 2.0, 2.5], similarity_top_k=10, filters=asked))
        return [(node.node_id, node.text, node.metadata, round(similarity, 6)) for node, similarity in zip(found.nodes, found.similarities)]

    seen = [search(filters) for filters in [[], *FILTERS]]
    seen.append(search(FILTERS[0] + FILTERS[4], FilterCondition.OR))
    store.delete("document of n1")
    seen.append(search(FILTERS[0]))
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="patient", value="Mary Jones")]))
    seen.append(search([]))
    return seen


plain, encrypted = answers(plain_engine(sys.argv[1]), True), answers(encrypted_engine(sys.argv[2]), PROTECTED)
for filters, one, other in zip(["all", *FILTERS, "or", "delete", "delete nodes"], plain, encrypted):
    assert one == other, (filters, one, other)
    assert one, filters
print(f"{len(plain)} searches, all as on plain columns")
