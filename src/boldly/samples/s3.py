"""Files in an S3 bucket: their `s3://` addresses become signed web addresses, which are read as any other.

Account and server are those that boto3 finds: `AWS_PROFILE`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`,
`AWS_ENDPOINT_URL` for servers other than Amazon's, the files in `~/.aws`, or the role of the machine. Without an
account requests are not signed, as public buckets allow.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from boldly.files import atomic_path
from boldly.records import InputError, Problem

SCHEME = "s3://"

# A stream that is taken up again is signed again, so a signature need not outlive a whole epoch.
_VALID_S = 3600


def is_s3(url: str) -> bool:
    """Tell whether an address is that of a file in an S3 bucket."""
    return url.startswith(SCHEME)


def web_address(url: str, method: str = "GET") -> str:
    """Return the web address of a file; that of a bucket is signed for one kind of request.

    Parameters
    ----------
    url : str
        ``s3://bucket/path``; a web address comes back as it is.
    method : str, optional
        GET (default) or HEAD.

    Raises
    ------
    InputError
        Where boto3 is not installed, or its settings are no use.

    Notes
    -----
    Signed addresses: "Sharing objects with presigned URLs", Amazon S3 User Guide.
    """
    if not is_s3(url):
        return url
    parts = urlsplit(url)
    place = {"Bucket": parts.netloc, "Key": unquote(parts.path.lstrip("/"))}
    operation = "head_object" if method == "HEAD" else "get_object"
    address: str = _client(url).generate_presigned_url(operation, Params=place, ExpiresIn=_VALID_S)
    return address


def listed(url: str) -> dict[str, int]:
    """Return the files below a folder of a bucket, by their paths below it, with their sizes in bytes.

    Parameters
    ----------
    url : str
        ``s3://bucket/folder``.

    Raises
    ------
    InputError
        Where the bucket cannot be read.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    parts = urlsplit(url)
    prefix = f"{unquote(parts.path.strip('/'))}/".lstrip("/")
    pages = _client(url).get_paginator("list_objects_v2").paginate(Bucket=parts.netloc, Prefix=prefix)
    try:
        found = [content for page in pages for content in page.get("Contents", [])]
    except (BotoCoreError, ClientError) as error:
        raise _unreadable(url, error) from None
    # A key that ends in a slash stands for a folder.
    return {
        content["Key"].removeprefix(prefix): content["Size"]
        for content in found
        if not content["Key"].endswith("/")
    }


def download(url: str, name: str, path: Path) -> None:
    """Copy a file of `listed`, given by its name there, to a path.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    parts = urlsplit(url)
    key = f"{unquote(parts.path.strip('/'))}/{name}".lstrip("/")
    try:
        with atomic_path(path) as temporary:
            _client(url).download_file(parts.netloc, key, str(temporary))
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise _unreadable(f"{url.rstrip('/')}/{name}", error) from None


def _unreadable(url: str, error: Exception) -> InputError:
    remedy = "check the address, AWS_PROFILE and AWS_ENDPOINT_URL, and start again; files that are here stay"
    return InputError(Problem(url, "", f"cannot be read: {error}", remedy))


def _client(url: str) -> Any:
    try:
        return _connect()
    except ModuleNotFoundError:
        problem = Problem(url, "", "boto3, which reads S3 buckets, is not installed", "pip install 'boldly[s3]'")
    except Exception as error:
        remedy = "check AWS_PROFILE, AWS_ENDPOINT_URL and the files in ~/.aws"
        problem = Problem(url, "", f"no access to S3: {type(error).__name__} {error}", remedy)
    raise InputError(problem)


@functools.cache
def _connect() -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.Session()
    # Addresses by path are understood by every server; those by host name need one name for each bucket.
    known = {
        "signature_version": "s3v4" if session.get_credentials() else UNSIGNED,
        "s3": {"addressing_style": "path"},
    }
    return session.client("s3", region_name=session.region_name or "us-east-1", config=Config(**known))
