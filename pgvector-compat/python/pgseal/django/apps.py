"""Reveals in the connections that the setting PGSEAL_REVEAL names."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db.backends.signals import connection_created

from .. import REVEAL


class PgsealConfig(AppConfig):
    name = "pgseal.django"
    label = "pgseal"

    def ready(self) -> None:
        connection_created.connect(reveal)


def reveal(connection: Any, **_: Any) -> None:
    """A receiver of `connection_created`."""
    if connection.alias in getattr(settings, "PGSEAL_REVEAL", ["default"]):
        with connection.cursor() as cursor:
            cursor.execute(REVEAL)
