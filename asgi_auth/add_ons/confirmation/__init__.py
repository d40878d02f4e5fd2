"""Confirmation: an address counts once somebody has proven that they read its mail; so does a change of it."""

from asgi_auth.add_ons.confirmation.options import Confirmation

__all__ = ["Confirmation"]
