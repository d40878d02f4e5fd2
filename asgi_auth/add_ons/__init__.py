"""Add-ons for accounts. Each has its own package."""

from asgi_auth.add_ons.confirmation import Confirmation
from asgi_auth.add_ons.invitation import APPLICATION, Invitation

__all__ = ["APPLICATION", "Confirmation", "Invitation"]
