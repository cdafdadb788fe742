"""What can be said of how a bucket is reached, as keywords of ``chipmink.open``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypedDict

__all__ = ["StorageOptions", "as_text"]


class StorageOptions(TypedDict, total=False):
    """How a bucket is reached, and with whose rights.

    What is not given is looked for where the provider's own tools look: in the environment (``AWS_*``, ``GOOGLE_*``,
    ``AZURE_*``), and for S3 in the profiles of ``~/.aws``. Any of them may stand in the URL instead, as in
    ``s3://bucket/prefix?region=eu-west-1``, but a secret is better not put there.
    """

    endpoint: str
    """URL of the service, if it is not the provider's own."""
    region: str
    """Region of the bucket (S3)."""
    access_key_id: str
    """Name of the key (S3)."""
    secret_access_key: str
    """The key (S3)."""
    session_token: str
    """What goes with a temporary key (S3)."""
    profile: str
    """Profile of the AWS configuration files (S3)."""
    path_style: bool
    """Whether the bucket is named in the path and not in the host (S3); true if an endpoint is given."""
    account_name: str
    """Storage account (Azure)."""
    account_key: str
    """Key of the storage account (Azure)."""
    sas_token: str
    """Shared access signature (Azure)."""
    service_account: str | os.PathLike[str]
    """JSON file of a service account (Google)."""
    anonymous: bool
    """Whether requests are not signed, for public buckets."""
    ca_file: str | os.PathLike[str]
    """PEM file of certificates to trust beside the system's."""
    timeout: float
    """Seconds that one request may take; 90 if not given."""
    cache: bool | str | os.PathLike[str]
    """A folder that keeps what was read of packs, for this and other processes; ``True`` for ``chipmink`` in the user's cache
    folder. What it holds is checked when it is used; only this user can read it. None if not given."""
    cache_size: int | str
    """Bytes that the folder may take, as a number or as text like ``"20GiB"``; 10 GiB if not given."""


def as_text(options: Mapping[str, Any]) -> dict[str, str]:
    """The options as the native side takes them."""
    texts: dict[str, str] = {}
    for name, value in options.items():
        if name not in StorageOptions.__annotations__:
            raise TypeError(f"open() got an unexpected keyword argument {name!r}")
        if value is None:
            continue
        if not isinstance(value, (str, bool, int, float, os.PathLike)):
            raise TypeError(f"{name} is a str, a number or a bool, not a {type(value).__qualname__}")
        texts[name] = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    return texts
