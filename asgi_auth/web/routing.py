"""Finds the phase of a request, for every way of mounting the plug."""

import logging
from collections.abc import Mapping
from urllib.parse import quote

from starlette.types import Scope

from asgi_auth.errors import RouteNotFoundError
from asgi_auth.protocol.paths import mount_advice, mount_prefixes, split_path, wrapped_prefixes
from asgi_auth.runtime.telling import Telling
from asgi_auth.types import Activity

SIGN_OUT = Activity(None, "sign_out")
ACCOUNT = Activity(None, "account")
OWN: Mapping[Activity, tuple[str, ...]] = {SIGN_OUT: ("POST",), ACCOUNT: ("GET", "HEAD")}
"""The activities that the plug itself serves besides the phases, with the methods of each."""
_MAX_PATH = 1024


class Routing:
    """The paths below one ``mount_path``."""

    def __init__(self, mount_path: str, telling: Telling) -> None:
        self._mount_path, self._telling = mount_path, telling

    def find(self, scope: Scope) -> Activity:
        """The activity of the path: ``/<strategy>/<phase>``, ``/sign_out`` or ``/account``.

        Raises RouteNotFoundError if the path has another form.
        """
        prefixes = mount_prefixes(scope.get("root_path", ""), scope.get("app_root_path", ""), self._mount_path)
        segments = split_path(_raw_path(scope), prefixes)
        if segments is not None and len(segments) == 1 and Activity(None, segments[0]) in OWN:
            return Activity(None, segments[0])
        if segments is None or len(segments) != 2:
            raise RouteNotFoundError("no such route")
        return Activity(*segments)

    def check_mount(self, scope: Scope, activity: Activity) -> None:
        """Log once if ``mount_path``, or the prefix that the server was told, is wrong."""
        path = _raw_path(scope).partition(b"?")[0].decode("ascii")
        mounted = path.rstrip("/").removesuffix("/" + "/".join(filter(None, activity)))
        advice = mount_advice(mounted, scope.get("root_path", ""), scope.get("app_root_path"), self._mount_path)
        if advice is not None:
            self._telling.once(logging.WARNING, "mount_path", advice)

    def wraps(self, scope: Scope) -> bool:
        """Whether a request to a wrapped application is for the plug. Encoded spellings of its paths count too."""
        prefixes = wrapped_prefixes(scope.get("root_path", ""), self._mount_path)
        return any(
            f"{path}/".startswith(f"{prefix}/")
            for path in (scope["path"][:_MAX_PATH], _raw_path(scope).decode("latin-1"))
            for prefix in prefixes
        )

    def path(self, activity: Activity) -> str:
        """The path of a phase, as the pages of the library write it."""
        return "/".join((self._mount_path, *filter(None, activity)))


def _raw_path(scope: Scope) -> bytes:
    """The path as it was sent. If the server does not pass it, ``path`` encoded again, so that ``%3F`` starts no query.

    It is cut to a length that no path of the library has. A longer path is therefore unknown.
    """
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"][:_MAX_PATH], errors="replace").encode()
    return raw_path[:_MAX_PATH]
