"""The package in ../python with the clients it is for.  Arguments: the server's socket, the encrypted database."""

import asyncio
import sys
import warnings

import asyncpg
import django
import pgseal
import psycopg
import psycopg2
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from django.apps import apps
from django.conf import settings
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore
from pgseal.haystack import Revealing
from pgseal.sqlalchemy import EncryptedJSONB, EncryptedText, EncryptedVector
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import MetaData, cast, create_engine, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

host, database = sys.argv[1:3]
words = f"host={host} user=postgres dbname={database}"
url = f"postgres@/{database}?host={host}"
NOTE = {"p": "John Smith", "age": 52}


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "package"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(EncryptedText("clients"))
    meta: Mapped[dict] = mapped_column(EncryptedJSONB("clients"))
    embedding = mapped_column(EncryptedVector("clients", 3))


# SQLAlchemy: tables, values, filters.
engine = pgseal.reveal(create_engine("postgresql+psycopg://" + url))
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add(Note(id=1, body="Chest pain.", meta=NOTE, embedding=[1, 2, 3]))
    session.commit()
    for condition in [Note.meta["p"].astext == "John Smith", Note.meta.contains({"age": 52}), Note.body.icontains("PAIN"), Note.embedding.l2_distance([1, 2, 3]) < 1]:
        found = session.scalars(select(Note).where(condition)).one()
        assert (found.body, found.meta) == ("Chest pain.", NOTE), condition
    assert session.scalar(select(cast(Note.body, EncryptedText()))) == "Chest pain."

# Reflection is without warnings, and Alembic without proposals.
with warnings.catch_warnings(), engine.connect() as connection:
    warnings.simplefilter("error")
    reflected = MetaData()
    reflected.reflect(connection, only=["package"])
    kinds = [type(column.type) for column in reflected.tables["package"].columns][1:]
    assert kinds == [EncryptedText, EncryptedJSONB, EncryptedVector], kinds
    only = {"include_object": lambda _, name, kind, *more: kind != "table" or name == "package"}
    changes = compare_metadata(MigrationContext.configure(connection, opts=only), Base.metadata)
    assert changes == [], changes
    for kind in [EncryptedText("clients"), JSONB()]:
        other = MetaData()
        Base.metadata.tables["package"].to_metadata(other).columns["meta"].type = kind
        changes = compare_metadata(MigrationContext.configure(connection, opts=only), other)
        assert [change[0][0] for change in changes] == ["modify_type"], changes

# Drivers and their pools.
for connection in [psycopg.connect(words), psycopg.connect(words, autocommit=True), psycopg2.connect(words)]:
    cursor = pgseal.reveal(connection).cursor()
    connection.rollback()
    cursor.execute("SELECT body, meta FROM package")
    assert cursor.fetchone() == ("Chest pain.", NOTE)
with ConnectionPool(words, configure=pgseal.reveal_connection, open=True) as pool, pool.connection() as connection:
    assert connection.execute("SELECT meta FROM package").fetchone() == (NOTE,)


async def asynchronous():
    async with AsyncConnectionPool(words, configure=pgseal.reveal_async, open=False) as pool, pool.connection() as connection:
        assert await (await connection.execute("SELECT meta FROM package")).fetchone() == (NOTE,)
    async with asyncpg.create_pool("postgresql://" + url, min_size=1, max_size=1, setup=pgseal.reveal_async) as pool:
        for _ in range(2):
            assert await pool.fetchval("SELECT body FROM package") == "Chest pain."
    for driver in ["psycopg", "asyncpg"]:
        engine = pgseal.reveal(create_async_engine(f"postgresql+{driver}://{url}"))
        async with engine.connect() as connection:
            assert (await connection.execute(select(Note.meta))).scalar_one() == NOTE
        await engine.dispose()


asyncio.run(asynchronous())


class Store(Revealing, PgvectorDocumentStore):
    pass


options = {"connection_string": Secret.from_token("postgresql://" + url), "table_name": "haystack_package", "embedding_dimension": 3}
PgvectorDocumentStore(**options)._ensure_db_setup()
with psycopg.connect(words, autocommit=True) as connection:
    connection.execute("CALL pgseal.encrypt_column('haystack_package', 'meta', 'clients')")
store = Store(**options)
store.write_documents([Document(id="n1", content="text", meta=NOTE, embedding=[1.0, 2.0, 3.0])])
assert store.filter_documents({"field": "meta.p", "operator": "==", "value": "John Smith"})[0].meta == NOTE

# Django: fields, lookups, the signal.
server = {"ENGINE": "django.db.backends.postgresql", "HOST": host, "USER": "postgres", "NAME": database}
settings.configure(DATABASES={"default": server, "other": server}, INSTALLED_APPS=["pgseal.django"], PGSEAL_REVEAL=["default"])
django.setup()
from django.db import connections, models  # noqa: E402, after the settings
from pgseal.django import EncryptedJSONField, EncryptedTextField, EncryptedVectorField  # noqa: E402
from pgvector.django import L2Distance  # noqa: E402


class Page(models.Model):
    body = EncryptedTextField(keyring="clients")
    meta = EncryptedJSONField(keyring="clients", default=dict)
    embedding = EncryptedVectorField(keyring="clients", dimensions=3)

    class Meta:
        app_label = "pages"


assert apps.is_installed("pgseal.django")
with connections["default"].schema_editor() as editor:
    editor.create_model(Page)
for field in Page._meta.fields[1:]:
    assert field.clone().db_type(connections["default"]) == field.db_type(connections["default"])
Page.objects.create(body="Chest pain.", meta=NOTE, embedding=[1, 2, 3])
for lookup in [{"meta__contains": {"age": 52}}, {"meta__p__icontains": "SMITH"}, {"body": "Chest pain."}, {"body__startswith": "Chest"}]:
    assert [(page.body, page.meta) for page in Page.objects.filter(**lookup)] == [("Chest pain.", NOTE)], lookup
assert Page.objects.order_by(L2Distance("embedding", [1, 2, 3])).first().meta == NOTE
with connections["other"].cursor() as cursor:
    cursor.execute("SELECT body FROM pages_page")
    assert cursor.fetchone()[0].startswith("pgseal:")
print("SQLAlchemy, Alembic, Django, Haystack, psycopg, psycopg2 and asyncpg with the package")
