"""Object stores: open the bucket of an address, and translate its errors to one line without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import MemoryStore, from_url

from np6_assets.storage.files import ChangedError, StoreError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_CLOUDS = {"s3": "AWS", "s3a": "AWS", "gs": "GOOGLE", "az": "AZURE", "abfs": "AZURE", "abfss": "AZURE"}
"""What the environment variables of a scheme's store begin with."""

_CREDENTIALS = {
    "AWS": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of the machine or pod",
    "GOOGLE": "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, or a managed identity",
}
_ENDPOINT = {
    "AWS": "AWS_ENDPOINT_URL (with AWS_ALLOW_HTTP=true where it is http://) and AWS_REGION",
    "GOOGLE": "the network",
    "AZURE": "AZURE_STORAGE_ACCOUNT_NAME",
}

_RETRIES: RetryConfig = {"max_retries": 6, "retry_timeout": timedelta(minutes=2)}
"""Within some 15 seconds: a sensor's tick has a minute, and a run has retries of its own."""

_REQUEST_SECONDS = 600
"""A large file is one request."""

_MEMORY = MemoryStore()


def open_bucket(url: str) -> ObjectStore:
    """Open the bucket of an address. Raises StoreError if its settings in the environment cannot be right."""
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return _MEMORY
    cloud = _CLOUDS[parts.scheme]
    settings = {name: value for name, value in os.environ.items() if name.startswith(f"{cloud}_")}
    return _open_store(f"{parts.scheme}://{parts.netloc}", cloud, frozenset(settings.items()), os.getpid())


@lru_cache(maxsize=8)
def _open_store(bucket: str, cloud: str, settings: frozenset[tuple[str, str]], _process: int) -> ObjectStore:
    """Open a store; its connections are kept as long as the settings are the same."""
    allow_http = dict(settings).get(f"{cloud}_ALLOW_HTTP", "").lower() in ("true", "1", "yes", "on")
    client: ClientConfig = {"timeout": timedelta(seconds=_REQUEST_SECONDS), "allow_http": allow_http}
    with translate_errors(bucket, bucket):
        return from_url(bucket, client_options=client, retry_config=_RETRIES)


@contextmanager
def translate_errors(bucket: str, path: str) -> Iterator[None]:
    """Raise FileNotFoundError, ChangedError or StoreError in place of the library's errors."""
    try:
        yield
    except FileNotFoundError as error:
        if _is_missing_bucket(str(error)):
            raise StoreError(_describe_error(bucket, error)) from None
        raise FileNotFoundError(path) from None
    except (AlreadyExistsError, PreconditionError):
        raise ChangedError(path) from None
    except (BaseError, ValueError) as error:
        raise StoreError(_describe_error(bucket, error)) from None


def _is_missing_bucket(text: str) -> bool:
    return any(code in text for code in ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"))


def _describe_error(bucket: str, error: Exception) -> str:
    """Describe what is wrong and what to do. The library's own text may quote a signed request."""
    text = str(error)
    cloud = _CLOUDS.get(urlsplit(bucket).scheme, "AWS")
    status = re.search(r"status code: (\d{3}[^:]*)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    reply = ", ".join(found.group(1).strip() for found in (status, code) if found)
    if _is_missing_bucket(text):
        return f"{bucket}: there is no such bucket where {_ENDPOINT[cloud]} say; set NP6_DATA_DIR to one that is there"
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return f"{bucket}: no credentials were found; set {_CREDENTIALS[cloud]}"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or (status and status.group(1)[:3] in "401 403"):
        return (
            f"{bucket}: refused ({reply or 'no permission'}); check {_CREDENTIALS[cloud]}, and what the bucket allows"
        )
    if "Redirect" in text or "AuthorizationHeaderMalformed" in text or reply.startswith("301"):
        return f"{bucket}: the bucket is in another region ({reply}); set {cloud}_REGION"
    if "BadScheme" in text:
        return f"{bucket}: the endpoint is http://, which is not encrypted; set {cloud}_ALLOW_HTTP=true if it is to be"
    if "error sending request" in text or "timed out" in text or "Connect" in text:
        return f"{bucket}: does not answer; check the network, and {_ENDPOINT[cloud]}"
    first = re.sub(r"https?://\S+", "", text.partition("\n")[0])
    return f"{bucket}: {reply or ' '.join(first.split())[:200]}"
