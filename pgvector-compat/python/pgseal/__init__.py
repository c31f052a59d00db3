"""Switches `pgseal.reveal` on in what an application connects with."""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = ["REVEAL", "reveal", "reveal_async", "reveal_connection"]

REVEAL = "SET pgseal.reveal = on"

T = TypeVar("T")


def reveal(target: T) -> T:
    """Reveals in this connection (DB-API), or in every connection of this SQLAlchemy engine; returns `target`."""
    engine = getattr(target, "sync_engine", target)
    if hasattr(engine, "dialect"):
        from sqlalchemy import event

        event.listen(engine, "connect", lambda connection, _: _run(connection))
    else:
        _run(target)
    return target


def reveal_connection(connection: Any) -> None:
    """Reveals in this connection (DB-API): for `configure=` of a pool of psycopg."""
    _run(connection)


async def reveal_async(connection: Any) -> None:
    """Reveals in this connection of asyncpg or psycopg."""
    await connection.execute(REVEAL)
    # Otherwise psycopg would leave a transaction open, whose end could take the setting back.
    if hasattr(connection, "commit") and not connection.autocommit:
        await connection.commit()


def _run(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(REVEAL)
    cursor.close()
    if not getattr(connection, "autocommit", False):
        connection.commit()
