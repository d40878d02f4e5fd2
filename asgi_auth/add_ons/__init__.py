"""What happens around accounts: one package an add-on."""

from asgi_auth.add_ons.confirmation import Confirmation
from asgi_auth.add_ons.invitation import APPLICATION, Invitation

__all__ = ["APPLICATION", "Confirmation", "Invitation"]
