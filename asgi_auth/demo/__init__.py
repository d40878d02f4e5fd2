"""A small application to try the library with, and to read: pages for people, without scripts, a few screens a file.

``python -m asgi_auth demo`` serves it. What an application of your own would have is ``plug``, ``site`` and the screens
that they draw; ``running`` is there because the demo needs no configuration.
"""

from asgi_auth.demo.account import device_name
from asgi_auth.demo.forms import STEPS
from asgi_auth.demo.running import add_ons, listen, load_secret, make_auth, run
from asgi_auth.demo.site import make_app

__all__ = ["STEPS", "add_ons", "device_name", "listen", "load_secret", "make_app", "make_auth", "run"]
