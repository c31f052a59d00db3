"""An embedding, with the distances of pgvector's VectorField."""

from pgvector.django import VectorField

from . import _Encrypted


class EncryptedVectorField(_Encrypted, VectorField):
    stored = "encrypted_vector"
