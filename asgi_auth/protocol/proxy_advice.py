"""Advice for an operator if the proxy and ``trusted_proxies`` do not match."""

from collections.abc import Mapping, Sequence

from asgi_auth.protocol.client import UNIX, TrustedProxies, parse_address
from asgi_auth.protocol.forwarded import ForwardedHeader, hops

Sent = Mapping[ForwardedHeader, Sequence[str]]
"""The values of every line of both headers of a request."""

_AS_ONE = "all its clients count as one"
_UNCOUNTED = "its clients are not told apart, and not limited"


def unlisted_proxy(peer: str | None, sent: Sent, proxies: TrustedProxies) -> str | None:
    """The advice if *peer* may be an untrusted proxy of the operator; None if there is none.

    A socket always gives advice, because only a proxy uses it. An address gives none without such a header, and none if
    it is public, as it may be a client. It gives none either if the server has replaced the peer by the address of the
    client, as uvicorn does by default for loopback peers.

    Args:
        peer: From :func:`asgi_auth.protocol.client.peer_of`.
        sent: The forwarding headers of the request.
        proxies: The trusted proxies.
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
    """The advice if *peer* is a trusted proxy that does not report its client; None if it does.

    An address without either header gives no advice: it may be a client in a trusted network.

    Args:
        peer: From :func:`asgi_auth.protocol.client.peer_of`.
        sent: The forwarding headers of the request.
        proxies: The trusted proxies.
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
