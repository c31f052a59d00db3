"""Types for encrypted columns, with the comparators of JSONB, Text and pgvector's Vector. Importing it lets SQLAlchemy reflect them."""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import Vector
from sqlalchemy import Column, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.ext.compiler import compiles

__all__ = ["EncryptedJSONB", "EncryptedText", "EncryptedVector"]


class _Encrypted:
    """What the three have in common: the keyring, a name in a model and its number in a reflected table."""

    keyring: str | None
    stored: str

    def sql(self, expression: Any, value: str) -> str:
        """The type of a column, in a cast that of the `value`; else without the keyring, for Alembic to compare."""
        if expression is not None and not isinstance(expression, Column):
            return value
        options = [self.keyring, getattr(self, "dim", None)] if expression is not None else []
        given = [str(option) for option in options if option is not None]
        return f"{self.stored}({', '.join(given)})" if given else self.stored


class EncryptedJSONB(_Encrypted, JSONB):
    """A JSON document."""

    stored = "encrypted_jsonb"
    cache_ok = True

    def __init__(self, keyring: str | None = None, none_as_null: bool = False, astext_type: Any = None) -> None:
        super().__init__(none_as_null=none_as_null, astext_type=astext_type)
        self.keyring = keyring


class EncryptedText(_Encrypted, Text):
    """A text."""

    stored = "encrypted_text"
    cache_ok = True

    def __init__(self, keyring: str | None = None) -> None:
        super().__init__()
        self.keyring = keyring


class EncryptedVector(_Encrypted, Vector):
    """An embedding, with the distances of pgvector's Vector."""

    stored = "encrypted_vector"
    cache_ok = True

    def __init__(self, keyring: str | None = None, dim: int | str | None = None) -> None:
        super().__init__(None if dim is None else int(dim))
        self.keyring = keyring

    def get_col_spec(self, type_expression: Any = None, **_: Any) -> str:
        return self.sql(type_expression, super().get_col_spec())


@compiles(EncryptedJSONB, "postgresql")
@compiles(EncryptedText, "postgresql")
def _sql(element: _Encrypted, compiler: Any, type_expression: Any = None, **_: Any) -> str:
    return element.sql(type_expression, "JSONB" if isinstance(element, JSONB) else "TEXT")


ischema_names.update({kind.stored: kind for kind in (EncryptedJSONB, EncryptedText, EncryptedVector)})
