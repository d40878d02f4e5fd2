"""Ways to sign in: one file a strategy."""

from asgi_auth.strategies.password import Password, Resettable

__all__ = ["Password", "Resettable"]
