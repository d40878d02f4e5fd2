"""Confirmation: a new or changed address is accepted after the user has proven access to its mailbox."""

from asgi_auth.add_ons.confirmation.options import Confirmation

__all__ = ["Confirmation"]
