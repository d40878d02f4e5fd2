"""Invitations: a mail asks a person to register, or to join with their existing account.

``options`` has the options of the application, ``states`` the states of an invitation, ``actions`` its actions.
"""

from asgi_auth.add_ons.invitation.inviting import APPLICATION
from asgi_auth.add_ons.invitation.options import Invitation

__all__ = ["APPLICATION", "Invitation"]
