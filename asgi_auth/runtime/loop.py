"""The event loop, which must be asyncio's: the drivers of the databases support no other."""

import asyncio

from asgi_auth.errors import ConfigurationError


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that runs this code.

    Raises:
        ConfigurationError: asyncio does not run it. Trio does, for example under ``hypercorn -k trio``.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError as exc:
        raise ConfigurationError(
            "event loop: asgi_auth needs asyncio, not trio: start the server with its asyncio worker, "
            "and run tests on the asyncio backend of anyio"
        ) from exc
