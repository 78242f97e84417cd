"""The shard format: what is written comes back, damage is noticed and named, other tools read it."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from boldly.records import InputError
from boldly.samples.shards import read_shard, subject_shards, write_shard
from tests.samples.examples import contract, run_sample, same, trial_sample


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Return a shard of two small runs."""
    path = tmp_path / "ds-toy_sub-01.tar"
    write_shard(path, [run_sample(run=1), run_sample(run=2)])
    return path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]


def write_tar(path: Path, content: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            tar.addfile(item, io.BytesIO(data))


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    samples = [trial_sample(number=0, marked=[2]), trial_sample(number=1, label=2), run_sample(dtype="float32")]
    write_shard(tmp_path / "a.tar", samples)
    assert all(same(*pair) for pair in zip(read_shard(tmp_path / "a.tar"), samples, strict=True))


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, shard: Path) -> None:
    write_shard(tmp_path / "again.tar", [run_sample(run=1), run_sample(run=2)])
    assert (tmp_path / "again.tar").read_bytes() == shard.read_bytes()


def test_the_bytes_are_those_of_webdataset(tmp_path: Path, shard: Path) -> None:
    from webdataset import TarWriter

    sorted_by_key: dict[str, dict[str, bytes]] = {}
    for name, data in members(shard).items():
        key, _, member = name.partition(".")
        sorted_by_key.setdefault(key, {})[member] = data
    reference = tmp_path / "reference.tar"
    with (
        reference.open("wb") as stream,
        TarWriter(stream, user="boldly", group="boldly", mtime=0, compress=False) as writer,
    ):
        for key, found in sorted_by_key.items():
            writer.write({"__key__": key, **found})
    assert shard.read_bytes() == reference.read_bytes()


def test_webdataset_reads_a_shard(shard: Path) -> None:
    from webdataset import WebDataset

    found = list(WebDataset(str(shard), shardshuffle=False, empty_check=False).decode())
    expected = list(read_shard(shard))
    assert [item["__key__"] for item in found] == [sample.key for sample in expected]
    assert np.array_equal(found[1]["bold.npy"], expected[1].bold)
    assert found[1]["json"]["t_r"] == 2.0


def test_webdataset_reads_a_sample_whose_name_is_too_long_for_old_tars(tmp_path: Path) -> None:
    from webdataset import WebDataset

    sample = dataclasses.replace(run_sample(), key="ds-toy_sub-01_task-" + "x" * 120)
    write_shard(tmp_path / "long.tar", [sample])
    assert same(next(read_shard(tmp_path / "long.tar")), sample)
    found = list(WebDataset(str(tmp_path / "long.tar"), shardshuffle=False, empty_check=False))
    assert [item["__key__"] for item in found] == [sample.key]


def test_members_can_be_mapped_into_memory(shard: Path) -> None:
    first = next(read_shard(shard))
    with tarfile.open(shard) as tar:
        item = tar.getmember(f"{first.key}.bold.npy")
    header = item.size - first.bold.nbytes
    mapped = np.memmap(shard, first.bold.dtype, "r", item.offset_data + header, first.bold.shape)
    assert np.array_equal(mapped, first.bold)


def test_a_shard_without_samples_is_a_tar_that_webdataset_opens(tmp_path: Path) -> None:
    from webdataset import WebDataset

    write_shard(tmp_path / "empty.tar", [])
    assert list(read_shard(tmp_path / "empty.tar")) == []
    found = WebDataset(str(tmp_path / "empty.tar"), shardshuffle=False, empty_check=False)
    assert list(found) == []


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="used twice"):
        write_shard(tmp_path / "a.tar", [run_sample(), run_sample()])
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_byte_is_noticed_wherever_it_matters(tmp_path: Path, shard: Path) -> None:
    whole = shard.read_bytes()
    expected = list(read_shard(shard))
    damaged = tmp_path / "damaged.tar"
    noticed = 0
    # A prime step visits headers, JSON, arrays, padding and the end of the archive alike.
    positions = range(0, len(whole), 23)
    for position in positions:
        damaged.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            found = list(read_shard(damaged))
        except InputError:
            noticed += 1
        else:
            # Some bytes of a tar header mean nothing: then the content must be the same.
            assert len(found) == len(expected)
            assert all(same(*pair) for pair in zip(found, expected, strict=True)), position
    assert noticed > 0.95 * len(positions)


def test_the_error_for_a_flipped_byte_names_file_sample_and_array(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    sample = list(read_shard(shard))[1]
    content[content.index(sample.mean.tobytes())] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(read_shard(shard))
    problem = caught.value.problems[0]
    assert (problem.where, problem.entity) == (str(shard), sample.key)
    assert "mean.npy" in problem.message


def test_a_cut_file_is_noticed_wherever_it_is_cut(tmp_path: Path, shard: Path) -> None:
    whole = shard.read_bytes()
    content = len(whole.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    # Every block border, so also exactly between members and between samples.
    for length in [*range(0, content, 512), content - 1, -(-content // 512) * 512 + 512]:
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut") as caught:
            list(read_shard(cut))
        assert str(cut) in str(caught.value)


def test_a_missing_shard_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such shard"):
        list(read_shard(tmp_path / "absent.tar"))


def test_text_that_is_no_tar_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("not a tar\n" * 200)
    with pytest.raises(InputError, match="not a complete tar"):
        list(read_shard(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("bold.npy", "lacks bold.npy"), ("json", "lacks json"), ("std.npy", "lacks std.npy")],
)
def test_a_sample_without_a_member_is_refused(tmp_path: Path, shard: Path, name: str, message: str) -> None:
    key = next(read_shard(shard)).key
    write_tar(tmp_path / "a.tar", {k: v for k, v in members(shard).items() if k != f"{key}.{name}"})
    with pytest.raises(InputError, match=message):
        list(read_shard(tmp_path / "a.tar"))


@pytest.mark.parametrize("name", ["../x.json", "/x.json", "a/x.json", "x", "..\\x.json"])
def test_names_with_folders_are_refused(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "a.tar", {name: b"{}"})
    with pytest.raises(InputError, match="name"):
        list(read_shard(tmp_path / "a.tar"))


def test_links_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("x.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(InputError, match="not a plain file"):
        list(read_shard(tmp_path / "a.tar"))


def test_an_array_that_declares_more_than_it_has_is_refused_before_memory_is_asked_for(
    tmp_path: Path, shard: Path
) -> None:
    content = members(shard)
    key = next(read_shard(shard)).key
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**9)})
    content[f"{key}.bold.npy"] = header.getvalue()
    meta = json.loads(content[f"{key}.json"])
    # The checksums are right, as those of a file made with intent would be.
    import hashlib

    meta["sha256"]["bold"] = hashlib.sha256(header.getvalue()).hexdigest()
    content[f"{key}.json"] = json.dumps(meta, sort_keys=True).encode()
    write_tar(tmp_path / "bomb.tar", content)
    with pytest.raises(InputError, match=r"shape \(1000000000, 1000000000\)"):
        list(read_shard(tmp_path / "bomb.tar"))


def test_an_array_of_objects_is_refused(tmp_path: Path, shard: Path) -> None:
    content = members(shard)
    key = next(read_shard(shard)).key
    stream = io.BytesIO()
    np.save(stream, np.array([print], dtype=object), allow_pickle=True)
    content[f"{key}.bold.npy"] = stream.getvalue()
    meta = json.loads(content[f"{key}.json"])
    import hashlib

    meta["sha256"]["bold"] = hashlib.sha256(stream.getvalue()).hexdigest()
    content[f"{key}.json"] = json.dumps(meta, sort_keys=True).encode()
    write_tar(tmp_path / "objects.tar", content)
    with pytest.raises(InputError, match="object"):
        list(read_shard(tmp_path / "objects.tar"))


def test_parcels_other_than_the_contract_says_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [dataclasses.replace(run_sample(), contract=contract(n_parcels=7))])
    with pytest.raises(InputError, match="7 parcels"):
        list(read_shard(tmp_path / "a.tar"))


def test_the_tars_of_a_subject_are_found_in_both_layouts(tmp_path: Path) -> None:
    whole = tmp_path / "ds-toy_sub-01.tar"
    assert subject_shards(tmp_path, "toy", "01") == [whole]
    for name in ("ds-toy_sub-01_task-a_run-1", "ds-toy_sub-01_task-a_run-2", "ds-toy_sub-012_task-a_run-1"):
        (tmp_path / f"{name}.tar").touch()
    found = [path.name for path in subject_shards(tmp_path, "toy", "01")]
    assert found == ["ds-toy_sub-01_task-a_run-1.tar", "ds-toy_sub-01_task-a_run-2.tar"]
    whole.touch()
    assert subject_shards(tmp_path, "toy", "01") == [whole]
