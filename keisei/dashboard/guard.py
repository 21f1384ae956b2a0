"""Who may ask the page's server for what: the token, the host and the origin of a request."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection, Mapping

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def refusal(
    headers: Mapping[str, str],
    path: str,
    given: str | None,
    token: str,
    hosts: Collection[str],
    port: int,
    *,
    any_address: bool = False,
) -> str | None:
    """Return why a request is refused; ``None`` where it is not.

    The page itself, its script and its style hold nothing of anybody's runs, and need no token.

    Args:
        headers: the request's headers, by lower-case names.
        path: its path.
        given: the token in its address, if any.
        token: the right one.
        hosts: the names that this server has.
        port: its port.
        any_address: whether any numeric address is one of its names, too.
    """
    host = headers.get("host", "")
    if not is_ours(host, hosts, port, any_address=any_address):
        return "this server is not called so"
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return "a page of another origin asks"
    is_followed_link = headers.get("sec-fetch-mode") == "navigate" and not path.startswith("/api/")
    site = headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin") and not is_followed_link:
        return "a page of another origin asks"
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if given is not None and not _same(given, token):
        return "the token in the address is not this server's: open the address that it has printed"
    if path.startswith("/api/") and not (scheme.lower() == "bearer" and _same(bearer, token)):
        return "the token is not this server's: open the address that it has printed"
    return None


def is_ours(host: str, hosts: Collection[str], port: int, *, any_address: bool = False) -> bool:
    """Return whether a `Host` header names this server.

    Another name may be an attacker's, who lets it lead to this machine; a numeric address cannot.

    Args:
        host: the header.
        hosts: the names that this server has.
        port: its port.
        any_address: whether any numeric address is one of its names, too.
    """
    name, separator, digits = host.rpartition(":")
    if not separator or digits != str(port):
        return False
    if name.lower() in hosts:
        return True
    if not any_address:
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())
