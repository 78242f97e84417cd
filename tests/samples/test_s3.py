from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boldly.files import is_url
from boldly.records import InputError
from boldly.samples import remote, s3
from boldly.samples.shards import write_shard
from tests.s3 import bucket_of
from tests.samples.examples import run_sample

NAME = "ds-toy_sub-01.tar"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WAITS_S", ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shard(tmp_path / NAME, [run_sample("01", n_volumes=20)])
    return tmp_path


@pytest.fixture
def bucket(folder: Path) -> Iterator[str]:
    with bucket_of(folder) as address:
        yield address


def test_a_bucket_is_read_as_any_address(bucket: str, folder: Path) -> None:
    url = remote.join(bucket, NAME)
    assert is_url(url)
    content = (folder / NAME).read_bytes()
    assert remote.fetch(url) == content
    assert remote.sizes([url]) == {url: len(content)}


def test_an_interrupted_stream_goes_on_where_it_was(bucket: str, folder: Path) -> None:
    content = (folder / NAME).read_bytes()
    with remote.WebStream(remote.join(bucket, NAME)) as stream:
        first = stream.read(1000)
        stream._disconnect()
        assert (first or b"") + stream.readall() == content


def test_an_absent_file_is_named_without_the_signature(bucket: str) -> None:
    with pytest.raises(InputError) as caught:
        remote.sizes([remote.join(bucket, "ds-toy_sub-99.tar")])
    assert "s3://brains/a%20study/ds-toy_sub-99.tar" in str(caught.value) or "ds-toy_sub-99" in str(caught.value)
    assert "404" in str(caught.value)
    assert "Signature" not in str(caught.value)


def test_a_public_bucket_needs_no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3._connect.cache_clear()
    address = s3.web_address("s3://openneuro.org/ds000105/dataset_description.json")
    s3._connect.cache_clear()
    assert address == "https://s3.amazonaws.com/openneuro.org/ds000105/dataset_description.json"


def test_without_boto3_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "boto3":
            raise ModuleNotFoundError("No module named 'boto3'", name="boto3")
        return real(name, *args, **kwargs)

    s3._connect.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match="boldly\\[s3\\]"):
        s3.web_address("s3://brains/x.tar")
