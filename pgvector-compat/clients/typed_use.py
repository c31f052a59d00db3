"""How typed programs use the package; checked by mypy, not run."""

import asyncpg
import pgseal
import psycopg
from pgseal.sqlalchemy import EncryptedJSONB, EncryptedText, EncryptedVector
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from typing_extensions import assert_type


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(EncryptedText("clients"))
    meta: Mapped[dict[str, object]] = mapped_column(EncryptedJSONB("clients", none_as_null=True))
    embedding: Mapped[list[float]] = mapped_column(EncryptedVector("clients", 3))


assert_type(pgseal.reveal(create_engine("postgresql+psycopg://")), Engine)
assert_type(pgseal.reveal(create_async_engine("postgresql+asyncpg://")), AsyncEngine)
connection: psycopg.Connection = pgseal.reveal(psycopg.connect())
pool = ConnectionPool("", configure=pgseal.reveal_connection)
async_pool = AsyncConnectionPool("", configure=pgseal.reveal_async)
asyncpg_pool = asyncpg.create_pool(setup=pgseal.reveal_async)
statement: str = pgseal.REVEAL
