"""Why there is no connection: what failed, on which host, and what to do."""

from __future__ import annotations

import socket
import ssl
from typing import Literal

import httpx

ConnectionProblem = Literal["name", "refused", "timeout", "certificate", "tls", "other"]

ADVICE: dict[ConnectionProblem, str] = {
    "name": "check the host in NP6_BASE_URL, and this machine's DNS",
    "refused": "check the host and the port in NP6_BASE_URL, and whether a firewall is in the way",
    "timeout": "check NP6_BASE_URL, and whether a firewall lets https out",
    "certificate": (
        "check this machine's clock and the host in NP6_BASE_URL; where a company's proxy signs anew, name its "
        "certificate in SSL_CERT_FILE"
    ),
    "tls": "check whether NP6_BASE_URL says https where the server speaks http, and whether a proxy is in the way",
    "other": "check NP6_BASE_URL and the network",
}


def classify_error(error: httpx.TransportError) -> tuple[ConnectionProblem, str]:
    """Classify an error by its cause, with details that quote no byte of an answer."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "certificate", cause.verify_message
        if isinstance(cause, ssl.SSLError):
            return "tls", cause.reason or "handshake failed"
        if isinstance(cause, socket.gaierror):
            return "name", cause.strerror or "name or service not known"
        if isinstance(cause, ConnectionRefusedError):
            return "refused", "connection refused"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return "timeout", "no answer in time"
    # the text of another error may quote the response
    return "other", f"the connection broke ({type(error).__name__})"


def describe_connect_error(error: httpx.TransportError, host: str, dialed: str, seconds: float | None) -> str:
    """Describe an error of connecting to `host` in one line.

    `dialed` is host and port of the connection, a proxy's if there is one; `seconds` is its timeout.
    """
    trouble, details = classify_error(error)
    server = dialed if dialed.startswith(host) else f"{dialed}, the proxy on the way to {host}"
    cause = {
        "name": f"unknown host {server} ({details})",
        "refused": f"connection refused by {server}",
        "timeout": f"no connection to {server} within {seconds:g} s" if seconds else f"no connection to {server}",
        "certificate": f"no trusted connection to {server} ({details})",
        "tls": f"no TLS connection to {server} ({details})",
        "other": f"no connection to {server} ({type(error).__name__})",
    }[trouble]
    return f"{cause}; {ADVICE[trouble]}"
