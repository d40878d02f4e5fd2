"""Ways to sign in: one file, or one package, a strategy."""

from asgi_auth.strategies.password import Password, Resettable

__all__ = ["Password", "Resettable"]
