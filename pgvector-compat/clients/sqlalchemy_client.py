"""SQLAlchemy 2: models with JSONB and Text, whose columns are encrypted.  Argument: the database's URL."""

import sys

from pgvector.sqlalchemy import Vector
from sqlalchemy import Text, create_engine, event, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    embedding = mapped_column(Vector(3))
    body: Mapped[str] = mapped_column(Text)
    note: Mapped[dict] = mapped_column("metadata", JSONB)


engine = create_engine(sys.argv[1])


# pgseal: begin
@event.listens_for(engine, "connect")
def reveal(connection, _):
    connection.execute("SET pgseal.reveal = on")
    connection.commit()


# pgseal: end

with Session(engine) as session:
    session.add_all([Doc(id=i, embedding=[i, 1, 2], body=f"text {i}", note={"patient": f"p{i % 3}", "age": 40 + i}) for i in range(9)])
    session.commit()
    nearest = select(Doc).where(Doc.note.contains({"patient": "p1"})).order_by(Doc.embedding.cosine_distance([1, 1, 2])).limit(2)
    found = session.scalars(nearest).all()
    assert [doc.id for doc in found] == [1, 4] and found[0].note == {"patient": "p1", "age": 41}, found
    equal = select(Doc.id).where(Doc.note["patient"].astext == "p2").order_by(Doc.id)
    assert session.scalars(equal).all() == [2, 5, 8]
    one_of = select(Doc.id).where(Doc.note["patient"].astext.in_(["p0", "p2"])).order_by(Doc.id)
    assert session.scalars(one_of).all() == [0, 2, 3, 5, 6, 8]
    assert session.scalars(select(Doc.body).where(Doc.body == "text 4")).all() == ["text 4"]
    found[0].note = {**found[0].note, "age": 99}
    session.commit()
    assert session.get(Doc, 1).note["age"] == 99
    session.query(Doc).delete()
    session.commit()
print("as for JSONB")
