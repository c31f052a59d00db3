"""Fields for encrypted columns, with the lookups of JSONField, TextField and pgvector's VectorField."""

from __future__ import annotations

from typing import Any

from django.db import models

__all__ = ["EncryptedJSONField", "EncryptedTextField", "EncryptedVectorField"]


class _Encrypted:
    """What the three have in common: a keyring's name, part of the column's type."""

    stored: str

    def __init__(self, *args: Any, keyring: str | None = None, **kwargs: Any) -> None:
        self.keyring = keyring
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()  # type: ignore[misc]
        if self.keyring is not None:
            kwargs["keyring"] = self.keyring
        return name, path, args, kwargs

    def db_type(self, connection: Any) -> str:
        options = [option for option in (self.keyring, getattr(self, "dimensions", None)) if option is not None]
        return f"{self.stored}({', '.join(map(str, options))})" if options else self.stored

    def cast_db_type(self, connection: Any) -> Any:
        """A cast is to the type of the value."""
        return super().db_type(connection)  # type: ignore[misc]


class EncryptedJSONField(_Encrypted, models.JSONField):
    """A JSON document."""

    stored = "encrypted_jsonb"


class EncryptedTextField(_Encrypted, models.TextField):
    """A text."""

    stored = "encrypted_text"


def __getattr__(name: str) -> Any:
    """EncryptedVectorField needs pgvector, which needs NumPy: only who uses it pays for it."""
    if name != "EncryptedVectorField":
        raise AttributeError(name)
    from .vector import EncryptedVectorField

    return EncryptedVectorField
