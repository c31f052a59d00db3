"""`class Store(Revealing, PgvectorDocumentStore)` reveals in its connections."""

from __future__ import annotations

from typing import Any

from . import reveal, reveal_async


class Revealing:
    """Put it before PgvectorDocumentStore."""

    def _create_connection(self) -> Any:
        return reveal(super()._create_connection())  # type: ignore[misc]

    async def _create_connection_async(self) -> Any:
        connection = await super()._create_connection_async()  # type: ignore[misc]
        await reveal_async(connection)
        return connection
