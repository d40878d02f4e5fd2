"""The strategy and phase of a request, from the path as it was sent (RFC 3986 sections 3.3 and 6.2; ASGI HTTP).

The scope of ``/auth/password/sign_in`` depends on the framework that mounts the plug. These values come from runs of
Starlette 1.10, FastAPI 0.165, Litestar 2.25, Quart 0.22, uvicorn 0.54, httpx 0.28 (``…`` is ``/password/sign_in``):

==============================================  ==================  =================  ==============  ===============
mounted by                                      path                raw_path           root_path       app_root_path
==============================================  ==================  =================  ==============  ===============
Starlette, FastAPI                              /auth…              /auth…             /auth           (empty)
nested mounts, /v1 then /auth                   /v1/auth…           /v1/auth…          /v1/auth        (empty)
FastAPI(root_path="/api"), proxy strips         /auth…              /auth…             /api/auth       /api
FastAPI(root_path="/api"), proxy does not       /api/auth…          /api/auth…         /api/auth       /api
uvicorn --root-path /api (it adds the prefix)   /api/auth…          /api/auth…         /api/auth       /api
Litestar, is_mount (path gains a slash)         …/                  /auth…             (empty)         absent
Litestar below a Starlette mount /lit           …/                  /lit/auth…         /lit            (empty)
Litestar, uvicorn --root-path /api              …/                  /api/auth…         /api            absent
around Quart or bare ASGI                       /auth…              /auth…             (empty)         absent
around bare ASGI, uvicorn --root-path /api      /api/auth…          /api/auth…         /api            absent
a dispatcher that strips both paths             …                   …                  /auth           absent
==============================================  ==================  =================  ==============  ===============

``raw_path`` is optional in ASGI, and some test clients put the query into it. Litestar does not report the path of its
own routers. There ``mount_path`` must be the whole path (``/v1/auth``).
"""

import re
from collections.abc import Sequence
from urllib.parse import quote

_REST = re.compile(rb"([A-Za-z0-9_.~-]+)(?:/([A-Za-z0-9_.~-]+))?/?")
_DOT_SEGMENTS = frozenset({"", ".", ".."})


def split_path(raw_path: bytes, prefixes: Sequence[str]) -> tuple[str, ...] | None:
    """The one or two segments after the mount: ``("password", "sign_in")`` or ``("sign_out",)``.

    Only one spelling of a path is accepted. Nothing is decoded, resolved or folded, so that a guard in front sees the
    same path (RP-6, HT-4). One slash at the end is allowed.

    >>> split_path(b"/auth/password/sign_in", ["/auth"])
    ('password', 'sign_in')

    Args:
        raw_path: The path as it was sent. A query is cut off. If the server gives none, ``path`` encoded again.
        prefixes: From :func:`mount_prefixes`; the first that matches, as whole segments, is removed.

    Returns:
        The segments. None for everything else: encoded characters, empty or dot segments, parameters, an absolute URL.
    """
    path = raw_path.partition(b"?")[0]
    for prefix in prefixes:
        mount = quote(prefix, errors="replace").encode("ascii") + b"/"
        if path.startswith(mount):
            return _segments(path[len(mount) :])
    return None


def _segments(rest: bytes) -> tuple[str, ...] | None:
    match = _REST.fullmatch(rest)
    segments = tuple(part.decode("ascii") for part in match.groups() if part is not None) if match else ("",)
    return None if _DOT_SEGMENTS.intersection(segments) else segments


def mount_prefixes(scope_root_path: str, app_root_path: str, mount_path: str) -> tuple[str, ...]:
    """The possible prefixes of the strategy in ``raw_path``, the likeliest first.

    >>> mount_prefixes("/api/auth", "/api", "/auth")
    ('/api/auth', '/auth', '')

    Args:
        scope_root_path: ``root_path`` of the scope.
        app_root_path: ``app_root_path`` of the scope, which Starlette's mounts leave: the part of ``root_path`` that
            the server was given. Empty if there is none.
        mount_path: The configured public path, with or without what a proxy or a mount adds in front.

    Returns:
        Prefixes without a slash at the end. The empty one is last, because a mounted plug only gets requests below its
        mount. A plug in front of a whole application must first check whether a request is its own.
    """
    root, server, public = (path.rstrip("/") for path in (scope_root_path, app_root_path, mount_path))
    mounted, own = _below(root, server), _below(public, server)
    likely = (root, mounted) if mounted.endswith(own) else _nested(root, server, public)
    return tuple(dict.fromkeys((*likely, root, mounted, "")))


def public_path(path: str, scope_root_path: str, app_root_path: str | None) -> str:
    """The path that the browser uses, if the server knows the prefix that a proxy cuts off.

    Only uvicorn puts ``root_path`` into ``path``. Other servers leave ``path`` as the proxy sent it.

    >>> public_path("/me", "/app", None), public_path("/app/me", "/app", None)
    ('/app/me', '/app/me')

    Args:
        path: ``path`` of the scope, decoded or not.
        scope_root_path: ``root_path`` of the scope.
        app_root_path: ``app_root_path`` of the scope, inside a mount of Starlette; None if there is none.

    Returns:
        *path* with the prefix in front, unless its first segments are already the prefix.
    """
    prefix = server_prefix(scope_root_path, app_root_path)
    return path if f"{path}/".startswith(f"{prefix}/") else prefix + path


def server_prefix(scope_root_path: str, app_root_path: str | None) -> str:
    """The part of ``root_path`` from the configuration of the server, without a slash at its end."""
    return (scope_root_path if app_root_path is None else app_root_path).rstrip("/")


def wrapped_prefixes(root_path: str, mount_path: str) -> tuple[str, ...]:
    """The possible prefixes of a plug in front of a whole application: the public path, with the prefix of a server,
    and without the prefix that a proxy cuts off.

    >>> wrapped_prefixes("/app", "/app/auth")
    ('/app/auth', '/app/app/auth', '/auth')
    """
    root = root_path.rstrip("/")
    prefixes = (mount_path, root + mount_path, _below(mount_path, root))
    return tuple(dict.fromkeys(filter(None, prefixes))) if root else (mount_path,)


def mount_advice(mounted: str, scope_root_path: str, app_root_path: str | None, mount_path: str) -> str | None:
    """The advice for the operator if links and forms, which use *mount_path*, do not reach the plug.

    Args:
        mounted: The path of the request without strategy and phase.
        scope_root_path: As in ``public_path``.
        app_root_path: The same.
        mount_path: The configured public path.

    Returns:
        The advice. None if the path is right, or if a proxy adds a prefix, which is not visible here.
    """
    prefix, seen = server_prefix(scope_root_path, app_root_path), public_path(mounted, scope_root_path, app_root_path)
    if not mounted.endswith(mount_path) and not mount_path.endswith(mounted):
        return f"mount_path: links go to {mount_path}, but the plug is at {mounted}: give the same to both"
    if prefix and _below(mount_path, prefix) == mount_path:
        return f"mount_path: the server has root_path {prefix}, and links go to {mount_path}: give mount_path={seen!r}"
    if prefix and mounted == prefix + mount_path:
        return f"root_path: the server adds {prefix}, and the proxy keeps it: do not give it to the server"
    if not prefix and mounted and mounted != mount_path and mount_path.endswith(mounted):
        cut = mount_path.removesuffix(mounted)
        return (
            f"root_path: links go to {mount_path}, and requests come to {mounted}. If a proxy cuts {cut} off, give the "
            f"server root_path {cut}, or return_to of require(redirect=...) lacks it"
        )
    return None


def _nested(root: str, server: str, public: str) -> tuple[str, ...]:
    """The prefixes with another framework than Starlette: the public path behind each possible base. The longest is
    first, because a shorter one may be its beginning."""
    bases = (root, _below(root, server), server, "")
    ends = (_below(public, server), _below(public, root) or public)
    return tuple(sorted({base + end for base in bases for end in ends}, key=lambda prefix: (-len(prefix), prefix)))


def _below(path: str, prefix: str) -> str:
    """*path* without *prefix*, if it starts with it as whole segments."""
    return path[len(prefix) :] if f"{path}/".startswith(f"{prefix}/") else path
