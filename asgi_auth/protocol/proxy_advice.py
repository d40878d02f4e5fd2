"""What to tell an operator whose proxy and whose ``trusted_proxies`` do not fit together."""

from collections.abc import Mapping, Sequence

from asgi_auth.protocol.client import UNIX, TrustedProxies, parse_address
from asgi_auth.protocol.forwarded import ForwardedHeader, hops

Sent = Mapping[ForwardedHeader, Sequence[str]]
"""The values of every line of both headers of a request."""

_AS_ONE = "all its clients count as one"
_UNCOUNTED = "its clients are not told apart, and not limited"


def unlisted_proxy(peer: str | None, sent: Sent, proxies: TrustedProxies) -> str | None:
    """What to say if *peer* may be a proxy of the operator's that is not trusted; None if there is nothing.

    A socket is always told of, for there only a proxy is. An address is not told of without such a header, if it is
    public, as any client may have one, and where the server has put the address of the client in the place of its
    peer's, as uvicorn does by default for loopback peers.

    Args:
        peer: From :func:`asgi_auth.protocol.client.peer_of`.
        sent: What the request says of its clients.
        proxies: Those that are listed.
    """
    address, header = parse_address(peer or ""), next((name for name, values in sent.items() if values), None)
    if proxies.trusts(peer) or (address is None and peer != UNIX):
        return None
    if address is None:
        where, listed, effect = "a UNIX socket", UNIX, _UNCOUNTED
    elif header is None or address.is_global or address in _hops(sent):
        return None
    else:
        where, listed, effect = str(address), str(address), _AS_ONE
    has = f"has {header.title()}" if header else "says nothing of its client"
    option = ', forwarded_header="forwarded"' if header == "forwarded" else ""
    return (
        f"a request from {where} {has}, and trusted_proxies does not list it: if that is your proxy, {effect}. Have "
        f"the proxy set {(header or proxies.header).title()}, whatever the client sends, and give "
        f'trusted_proxies=["{listed}"]{option}'
    )


def silent_proxy(peer: str | None, sent: Sent, proxies: TrustedProxies) -> str | None:
    """What to say if *peer* is a listed proxy that does not tell who its client is; None if it does.

    An address without either header is not told of: it may be that of a client, in a listed network.

    Args:
        peer: From :func:`asgi_auth.protocol.client.peer_of`.
        sent: What the request says of its clients.
        proxies: Those that are listed.
    """
    header, other = proxies.header, next(name for name in sent if name != proxies.header)
    if not proxies.trusts(peer) or parse_address(next(hops(header, sent[header]), "")) is not None:
        return None
    if peer != UNIX and not (sent[header] or sent[other]):
        return None
    where = "a UNIX socket" if peer == UNIX else peer
    if any(sent[header]):
        has, effect = f"has {header.title()} that does not end with an address", _AS_ONE
    else:
        has, effect = f"has no {header.title()}", _UNCOUNTED if peer == UNIX else _AS_ONE
    advice = ""
    if header == "forwarded":
        advice += '. An IPv6 address needs brackets and quotation marks: for="[2001:db8::1]"'
    if sent[other]:
        advice += f'. It has {other.title()}: if your proxy sets that, give forwarded_header="{other}"'
    return (
        f"a request from {where}, which trusted_proxies lists, {has}: {effect}. Have the proxy set {header.title()}, "
        f"whatever the client sends{advice}"
    )


def _hops(sent: Sent) -> set[object]:
    return {parse_address(hop) for name, values in sent.items() for hop in hops(name, values)}
