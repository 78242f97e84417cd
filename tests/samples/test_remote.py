"""Shards at a web address: complete, or an error that names the address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from boldly.records import InputError
from boldly.samples import remote
from boldly.samples.corpus import load_corpus
from boldly.samples.shards import read_shard, write_shard
from tests.samples.examples import run_sample, same
from tests.web import Server, serving

NAME = "ds-toy_sub-01.tar"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WAITS_S", (0.0, 0.0, 0.0))


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    # Longer than what tar readers take at once (10 KiB), so that cuts fall between reads.
    write_shard(tmp_path / NAME, [run_sample(run=run, n_volumes=900, dtype="float32") for run in (1, 2, 3)])
    return tmp_path / NAME


@pytest.fixture
def server(shard: Path) -> Iterator[Server]:
    with serving(shard.parent) as server:
        yield server


def read(server: Server, name: str = NAME) -> list:
    return list(read_shard(f"{server.url}/{name}"))


def test_a_shard_is_the_same_from_an_address(server: Server, shard: Path) -> None:
    found, expected = read(server), list(read_shard(shard))
    assert len(found) == 3
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


def test_a_shard_without_samples_is_none_from_an_address(server: Server, tmp_path: Path) -> None:
    write_shard(tmp_path / "empty.tar", [])
    assert read(server, "empty.tar") == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_taken_up_where_it_broke(server: Server, shard: Path, ranges: bool) -> None:
    server.ranges, server.cut = ranges, {NAME: 1}
    assert all(same(one, other) for one, other in zip(read(server), read_shard(shard), strict=True))
    half = shard.stat().st_size // 2
    assert server.starts == [(NAME, 0), (NAME, half if ranges else 0)]


def test_without_a_size_the_end_of_the_tar_tells_what_is_cut(server: Server, shard: Path) -> None:
    server.lengths = False
    assert len(read(server)) == 3
    server.cut = {NAME: 2}
    with pytest.raises(InputError, match="not a complete tar"):
        read(server)


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.busy = {NAME: 3}
    assert len(read(server)) == 3


def test_a_server_that_always_breaks_off_is_an_error_that_names_the_address(server: Server) -> None:
    server.ranges, server.cut = False, {NAME: 1000}
    with pytest.raises(InputError, match=rf"(?s)cannot be read: cut .*{server.url}/{NAME}"):
        read(server)
    # One request and three more.
    assert server.asked[NAME] == 4


def test_a_server_that_stays_busy_is_an_error_that_names_the_address(server: Server) -> None:
    server.busy = {NAME: 1000}
    with pytest.raises(InputError, match=rf"(?s)the server answers 503.*{server.url}/{NAME}"):
        read(server)


def test_an_absent_file_is_an_error_at_once(server: Server) -> None:
    with pytest.raises(InputError, match=rf"(?s)the server answers 404.*{server.url}/none.tar"):
        read(server, "none.tar")
    assert server.asked["none.tar"] == 1


def test_no_server_is_an_error_that_names_the_address(server: Server) -> None:
    url = f"{server.url}/{NAME}"
    server.server_close()
    with pytest.raises(InputError, match=rf"(?s)cannot be read: .*{url}"):
        list(read_shard(url))


def test_a_file_that_changes_while_it_is_read_is_refused(
    server: Server, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cut = {NAME: 1}
    content = shard.read_bytes()
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: shard.write_bytes(content + bytes(10240)))
    with pytest.raises(InputError, match="changed while it was read"):
        read(server)


def test_secrets_of_an_address_are_sent_and_not_shown(server: Server) -> None:
    url = remote.join(f"{server.url}/absent?signature=abc", NAME)
    with pytest.raises(InputError) as error:
        list(read_shard(url))
    assert "abc" not in str(error.value)
    assert server.requests == [f"/absent/{NAME}?signature=abc"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        pytest.param(lambda c: c[:-10240], "not a complete tar", id="cut in the last member"),
        pytest.param(lambda c: c[: len(c) // 3], "not a complete tar", id="cut"),
        pytest.param(lambda c: c.rstrip(b"\0") + b"\0" * 8, "not a complete tar", id="no end"),
        pytest.param(lambda c: c + b"more" * 4096, "no member accounts for", id="more behind the end"),
        pytest.param(lambda c: c[:30000] + b"\1" + c[30001:], "checksum of bold.npy", id="a flipped byte"),
        pytest.param(lambda c: b"", "end of the archive is missing|not a complete tar", id="empty"),
        pytest.param(lambda c: b"<html>not a tar</html>" * 99, "does not start as one", id="a web page"),
        pytest.param(lambda c: b"\x1f\x8b" + c, "does not start as one", id="compressed"),
    ],
)
def test_a_damaged_file_is_refused(server: Server, shard: Path, harm, words) -> None:
    shard.write_bytes(harm(shard.read_bytes()))
    with pytest.raises(InputError, match=words) as error:
        read(server)
    assert f"{server.url}/{NAME}" in str(error.value)


def test_a_damaged_header_does_not_hide_the_samples_behind_it(server: Server, shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    second = content.index(b"ds-toy_sub-01_task-blocks_run-2.bold.npy")
    content[second + 100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="a damaged header"):
        read(server)


def test_sizes_name_every_absent_file(server: Server, shard: Path) -> None:
    urls = [f"{server.url}/{name}" for name in (NAME, "one.tar", "two.tar")]
    assert remote.sizes(urls[:1]) == {urls[0]: shard.stat().st_size}
    with pytest.raises(InputError) as error:
        remote.sizes(urls)
    assert [problem.where for problem in error.value.problems] == urls[1:]


def test_threads_read_the_same_corpus(server: Server, tmp_path: Path) -> None:
    names = [f"ds-toy_sub-{number:02d}.tar" for number in range(2, 7)]
    for name in names:
        write_shard(tmp_path / name, [run_sample(subject=name[11:13])])
    one = load_corpus([tmp_path / name for name in names])
    other = load_corpus([f"{server.url}/{name}" for name in names], threads=3)
    assert one.keys == other.keys
    assert one.frames.tobytes() == other.frames.tobytes()
