"""Sign in with a password and an address or user name.

Actions: register, sign_in, sign_in_with_token, reauthenticate, reset_request, reset.
"""

from asgi_auth.strategies.password.actions import SIGN_IN, PasswordActions
from asgi_auth.strategies.password.extra_fields import EXTRA_FIELD_LIMIT, RegisterField
from asgi_auth.strategies.password.options import Password, Resettable
from asgi_auth.strategies.password.resetting import RESET

__all__ = ["EXTRA_FIELD_LIMIT", "RESET", "SIGN_IN", "Password", "PasswordActions", "RegisterField", "Resettable"]
