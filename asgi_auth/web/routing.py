"""Which phase a request is for, under every way of mounting the plug."""

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
"""What the plug itself serves beside the phases, with the methods of each."""
_MAX_PATH = 1024


class Routing:
    """The paths below one ``mount_path``."""

    def __init__(self, mount_path: str, telling: Telling) -> None:
        self._mount_path, self._telling = mount_path, telling

    def find(self, scope: Scope) -> Activity:
        """Whose path it is, ``/<strategy>/<phase>``, ``/sign_out`` or ``/account``. RouteNotFoundError: nobody's."""
        prefixes = mount_prefixes(scope.get("root_path", ""), scope.get("app_root_path", ""), self._mount_path)
        segments = split_path(_raw_path(scope), prefixes)
        if segments is not None and len(segments) == 1 and Activity(None, segments[0]) in OWN:
            return Activity(None, segments[0])
        if segments is None or len(segments) != 2:
            raise RouteNotFoundError("no such route")
        return Activity(*segments)

    def check_mount(self, scope: Scope, activity: Activity) -> None:
        """Say once what is wrong with ``mount_path``, or with the prefix that the server was told."""
        path = _raw_path(scope).partition(b"?")[0].decode("ascii")
        mounted = path.rstrip("/").removesuffix("/" + "/".join(filter(None, activity)))
        advice = mount_advice(mounted, scope.get("root_path", ""), scope.get("app_root_path"), self._mount_path)
        if advice is not None:
            self._telling.once(logging.WARNING, "mount_path", advice)

    def wraps(self, scope: Scope) -> bool:
        """Whether a request to a wrapped application is the plug's; an encoded spelling of its paths is, too."""
        prefixes = wrapped_prefixes(scope.get("root_path", ""), self._mount_path)
        return any(
            f"{path}/".startswith(f"{prefix}/")
            for path in (scope["path"][:_MAX_PATH], _raw_path(scope).decode("latin-1"))
            for prefix in prefixes
        )

    def path(self, activity: Activity) -> str:
        """Where a phase is served, as pages of the library write it."""
        return "/".join((self._mount_path, *filter(None, activity)))


def _raw_path(scope: Scope) -> bytes:
    """As it was sent; where the server does not tell, ``path`` encoded again, so that ``%3F`` is no query.

    Cut to a length that no path of ours has, so that a longer one is as unknown as the rest of it.
    """
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"][:_MAX_PATH], errors="replace").encode()
    return raw_path[:_MAX_PATH]
