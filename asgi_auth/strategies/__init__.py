"""Strategies: ways to sign in. Each has its own module or package."""

from asgi_auth.strategies.password import Password, Resettable

__all__ = ["Password", "Resettable"]
