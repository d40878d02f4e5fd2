"""A small application to try the library with, and to read. The library draws its pages: those here are its own.

``python -m asgi_auth demo`` serves it. What an application of your own would have is ``plug``, ``pages``, ``site`` and
the two pages in ``account`` and ``invitations``; ``running`` is there because the demo needs no configuration.
"""

from asgi_auth.demo.account import device_name
from asgi_auth.demo.pages import APP_NAME, DemoPages
from asgi_auth.demo.running import add_ons, listen, load_secret, make_auth, run
from asgi_auth.demo.site import make_app

__all__ = ["APP_NAME", "DemoPages", "add_ons", "device_name", "listen", "load_secret", "make_app", "make_auth", "run"]
