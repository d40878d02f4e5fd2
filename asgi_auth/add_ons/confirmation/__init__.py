"""Confirmation: an address, or a change of it, counts once the user has proven access to the mailbox."""

from asgi_auth.add_ons.confirmation.options import Confirmation

__all__ = ["Confirmation"]
