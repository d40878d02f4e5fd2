"""Invitations: a person is asked by mail to register, or to join with an existing account.

``options`` is what the application says, ``states`` the states of an invitation, ``actions`` what can be done to one.
"""

from asgi_auth.add_ons.invitation.inviting import APPLICATION
from asgi_auth.add_ons.invitation.options import Invitation

__all__ = ["APPLICATION", "Invitation"]
