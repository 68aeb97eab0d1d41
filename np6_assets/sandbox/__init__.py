"""The simulated NP6 account.

`population` says who sends what to whom, `behaviour` how receivers react, `rendering` writes that as the API writes
it, `app` is the API's HTTP interface, and `server` serves it on a loopback address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from np6_assets.np6.errors import PermanentError


@contextmanager
def simulated_account(now: Callable[[], datetime]) -> Iterator[str]:
    """Serve the simulated account, which needs no key, while the context is open; gives its address.

    Raises PermanentError where what it needs is not installed.
    """
    try:
        from np6_assets.sandbox.app import create_app
        from np6_assets.sandbox.population import Account
        from np6_assets.sandbox.server import serve_in_thread
    except ModuleNotFoundError as error:
        text = f"the simulated account needs {error.name}, which is not installed: pip install 'np6-assets[sandbox]'"
        raise PermanentError(text) from None

    with serve_in_thread(create_app(Account(), api_key=None, now=now)) as address:
        yield address
