"""Users in the application's own table, through SQLAlchemy 2 on asyncio; SQLite and PostgreSQL."""

from asgi_auth.stores.sqlalchemy.adopt import Adopted
from asgi_auth.stores.sqlalchemy.store import SQLAlchemyStore
from asgi_auth.stores.sqlalchemy.tables import Tables, make_tables

__all__ = ["Adopted", "SQLAlchemyStore", "Tables", "make_tables"]
