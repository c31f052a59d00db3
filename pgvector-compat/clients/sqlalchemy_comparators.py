"""What SQLAlchemy's comparators of JSONB, Text and Vector send.  Argument: the database's URL, plain and encrypted."""

import sys

from pgvector.sqlalchemy import Vector
from sqlalchemy import Float, String, Text, case, cast, create_engine, delete, distinct, event, func, insert, literal, or_, select, text, true, update
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH, aggregate_order_by, array, insert as pg_insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from twins import Cases


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    embedding = mapped_column(Vector(3))
    body: Mapped[str | None] = mapped_column(Text)
    note: Mapped[dict | None] = mapped_column("metadata", JSONB(none_as_null=True))


ROWS = [
    {"id": 1, "embedding": [1, 2, 3], "body": "Chest pain.", "note": {"p": "John Smith", "age": 52, "n": {"c": "Oslo"}, "t": ["a", "b"], "ok": True}},
    {"id": 2, "embedding": [3, 1, 2], "body": "Asthma", "note": {"p": "Mary Jones", "age": 34, "n": {"c": "Bergen"}, "t": ["b"], "ok": False}},
    {"id": 3, "embedding": [2, 2, 1], "body": "chest pain.", "note": {"p": "John Smith", "age": 52.5, "t": []}},
    {"id": 4, "embedding": [0, 1, 0], "body": "Asthma", "note": {}},
    {"id": 5, "embedding": None, "body": None, "note": None},
]
cases = Cases("sqlalchemy")
note, body = Doc.note, Doc.body


def rows(name, statement, ordered=False):
    def run(engine):
        with Session(engine) as session:
            found = [repr(tuple(row)) for row in session.execute(statement)]
            session.rollback()
        return found if ordered else sorted(found)

    cases.add(name, run)


def where(name, *conditions):
    rows(name, select(Doc.id).where(*conditions))


rows("all", select(Doc.id, Doc.body, Doc.note))
where("contains", note.contains({"p": "John Smith"}))
where("contained_by", note.contained_by({"p": "Mary Jones", "x": 1}))
where("equals", note == {})
where("differs", note != {})
where("in", note.in_([{}, {"a": 1}]))
where("is_none", note.is_(None))
where("has_key", note.has_key("ok"))
where("has_any", note.has_any(array(["ok", "x"])))
where("has_all", note.has_all(array(["ok", "p"])))
where("astext", note["p"].astext == "John Smith")
where("astext_in", note["p"].astext.in_(["John Smith", "x"]))
where("astext_like", note["p"].astext.like("John%"))
where("astext_ilike", note["p"].astext.ilike("john%"))
where("astext_startswith", note["p"].astext.startswith("Mary"))
where("astext_cast", note["age"].astext.cast(Float) > 40)
where("as_integer", note["age"].as_integer() == 34, Doc.id == 2)
where("as_float", note["age"].as_float() > 40)
where("as_boolean", note["ok"].as_boolean())
where("as_string", note["p"].as_string() == "John Smith")
where("as_json", note["n"].as_json() == {"c": "Oslo"})
where("item_equals", note["p"] == cast("John Smith", JSONB))
where("item_greater", note["age"] > cast(40, JSONB))
where("item_null", note["p"].is_(None))
where("nested", note["n"]["c"].astext == "Oslo")
where("tuple_path", note[("n", "c")].astext == "Oslo")
where("tuple_path_json", note[("n", "c")] == cast("Oslo", JSONB))
where("array_item", note["t"][0].astext == "a")
where("nested_contains", note["t"].contains(["b"]))
where("path_exists", note.path_exists("$.n.c"))
where("path_match", note.path_match("$.age > 40"))
where("typeof", func.jsonb_typeof(note["t"]) == "array")
where("array_length", func.jsonb_array_length(note["t"]) > 1)
where("extract_path_text", func.jsonb_extract_path_text(note, "n", "c") == "Oslo")
where("or", or_(note["p"].astext == "Mary Jones", note["age"].astext.cast(Float) > 52))
where("not", ~note.contains({"p": "John Smith"}))
where("text_equals", body == "Asthma")
where("text_in", body.in_(["Asthma", "x"]))
where("text_not_in", body.not_in(["Asthma", "x"]))
where("text_contains", body.contains("pain"))
where("text_icontains", body.icontains("PAIN"))
where("text_regexp", body.regexp_match("^[Cc]hest"))
where("text_between", body.between("A", "B"))
where("text_distinct_from", body.is_distinct_from("Asthma"))
where("lower", func.lower(body) == "chest pain.")
where("length", func.length(body) > 8)
where("concatenated", body + "x" == "Asthmax")
where("concat", func.concat(body, "!") == "Asthma!")
where("collated", body.collate("C") == "Asthma")
where("subquery", body.in_(select(Doc.body).where(Doc.id == 2).scalar_subquery()))
rows("items", select(Doc.id, note["p"], note["n"]["c"], note["p"].astext))
rows("coalesce", select(Doc.id, func.coalesce(body, "-")))
rows("coalesce_json", select(Doc.id, func.coalesce(note, cast({}, JSONB))))
rows("case", select(Doc.id, case((body == "Asthma", "a"), else_=body)))
rows("cast", select(cast(note, Text), cast(body, String)))
rows("concatenated_json", select(note.concat({"x": 1})))
rows("delete_path", select(note.delete_path(["n", "c"])).where(Doc.id < 4))
rows("delete_key", select(note - "p").where(Doc.id < 4))
rows("path_query", select(func.jsonb_path_query_first(note, cast("$.n.c", JSONPATH))))
rows("jsonb_set", select(func.jsonb_set(note, array(["age"]), cast(1, JSONB))).where(Doc.id < 4))
rows("elements", select(Doc.id, func.jsonb_array_elements_text(note["t"])))
pairs = func.jsonb_each_text(note["n"]).table_valued("key", "value").lateral()
rows("each", select(Doc.id, pairs.c.value).join(pairs, true()))
rows("row", select(func.row_to_json(text("docs"))).select_from(Doc).where(Doc.id < 3))
rows("json_agg", select(func.json_agg(aggregate_order_by(note, Doc.id))))
rows("array_agg", select(func.array_agg(aggregate_order_by(body, Doc.id))))
rows("string_agg", select(func.string_agg(body, aggregate_order_by(literal(","), Doc.id))))
rows("build_object", select(func.json_build_object("body", body, "note", note)))
rows("order_by", select(Doc.id).order_by(body, Doc.id), True)
rows("order_by_item", select(Doc.id).order_by(note["p"].astext, Doc.id), True)
rows("order_by_json", select(Doc.id).order_by(note["age"], Doc.id), True)
patient = note["p"].astext.label("patient")
rows("group_by", select(patient, func.count()).group_by(patient).order_by(patient), True)
rows("group_by_text", select(body, func.count()).group_by(body).having(func.count() > 1))
rows("distinct", select(body).distinct())
rows("distinct_item", select(note["p"].astext).distinct())
rows("count_distinct", select(func.count(distinct(body))))
rows("max_min", select(func.max(body), func.min(note["p"].astext)))
rows("union", select(body).where(Doc.id < 3).union(select(body)))
rows("row_number", select(Doc.id, func.row_number().over(partition_by=note["p"].astext, order_by=Doc.id)))
rows("nearest", select(Doc.id).where(Doc.id < 5).order_by(Doc.embedding.l2_distance([1, 2, 3]), Doc.id), True)
rows("nearest_filtered", select(Doc.id).where(note["p"].astext == "John Smith").order_by(Doc.embedding.cosine_distance([1, 1, 1])), True)
rows("max_product", select(Doc.id, Doc.embedding.max_inner_product([1, 1, 1])))
rows("embedding", select(Doc.embedding).where(Doc.id == 1).with_only_columns(cast(Doc.embedding, Text)))
rows("insert", insert(Doc).values(id=9, body="new", note={"a": 1}).returning(Doc.body, Doc.note))
rows("insert_select", insert(Doc).from_select(["id", "body", "metadata"], select(Doc.id + 10, Doc.body, Doc.note)).returning(Doc.id, Doc.body, Doc.note))
upsert = pg_insert(Doc).values(id=1, body="again", note={"a": 1})
rows("upsert", upsert.on_conflict_do_update(index_elements=["id"], set_={"body": upsert.excluded.body, "metadata": Doc.note.concat(upsert.excluded.metadata)}).returning(Doc.body, Doc.note))
rows("update", update(Doc).where(note["p"].astext == "John Smith").values(body="x", note={"a": 1}).returning(Doc.id, Doc.body, Doc.note))
rows("update_concat", update(Doc).where(Doc.id == 1).values(note=Doc.note.concat({"a": 1}), body=Doc.body + "!").returning(Doc.body, Doc.note))
rows("update_item", update(Doc).where(Doc.id == 1).values({Doc.note["a"]: 1}).returning(Doc.note))
rows("update_function", update(Doc).where(Doc.id == 1).values(body=func.upper(Doc.body)).returning(Doc.body))
rows("delete", delete(Doc).where(note["p"].astext == "John Smith").returning(Doc.id, Doc.note))


def filled(url, reveal):
    engine = create_engine(url)
    if reveal:
        # pgseal: begin
        @event.listens_for(engine, "connect")
        def reveal_on(connection, _):
            connection.execute("SET pgseal.reveal = on")
            connection.commit()

        # pgseal: end
    else:
        Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(insert(Doc), ROWS)
        session.commit()
    return engine


sys.exit(not cases.compare(filled(sys.argv[1], False), filled(sys.argv[2], True)))
