"""LfB's tars of pickles: data come in, nothing a pickle asks for is done."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldly.records import InputError
from boldly.samples.corpus import load_corpus
from boldly.samples.lfb_shards import write_lfb_shards
from boldly.samples.pickles import PickleError, load_numbers
from boldly.samples.shards import read_shard
from tests.samples.examples import N_PARCELS, run_sample, trial_sample

RUN = "ds-hcp_sub-100307_task-MOTOR_run-1"
BOLD = np.random.default_rng(0).normal(size=(20, N_PARCELS)).astype(np.float32)


class Command:
    """Pickles as a call of a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
    return path


def write_run(path: Path, **changes: bytes) -> Path:
    content = {"bold.pyd": pickle.dumps(BOLD), "t_r.pyd": pickle.dumps(np.float32(0.72))}
    return write_tar(path, {f"{RUN}.{name}": data for name, data in (content | changes).items()})


def read_one(path: Path) -> Any:
    (sample,) = read_shard(path)
    return sample


def test_a_run_comes_in(tmp_path: Path) -> None:
    sample = read_one(write_run(tmp_path / "a.tar"))
    assert sample.key == RUN
    assert np.array_equal(sample.bold, BOLD)
    assert sample.bold.dtype == np.float32
    # LfB stores the repetition time as float32.
    assert sample.meta["t_r"] == pytest.approx(0.72, abs=1e-7)
    assert (sample.meta["dataset"], sample.meta["subject"], sample.meta["run_key"]) == ("hcp", "100307", RUN)
    assert sample.meta["entities"] == {"sub": "100307", "task": "MOTOR", "run": "1"}
    assert sample.contract.atlas_sha256 == ""
    assert sample.contract.n_parcels == N_PARCELS


def test_frames_come_in_c_order_whatever_the_order_of_the_pickle(tmp_path: Path) -> None:
    sample = read_one(write_run(tmp_path / "a.tar", **{"bold.pyd": pickle.dumps(np.asfortranarray(BOLD))}))
    assert sample.bold.flags.c_contiguous
    assert np.array_equal(sample.bold, BOLD)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_parcel_that_is_nan_at_all_frames_is_marked(tmp_path: Path, dtype: type) -> None:
    """Atlases reach beyond the images of many studies; AAL's cerebellum is often cut off."""
    bold: np.ndarray = BOLD.astype(dtype)
    bold[:, [1, 3]] = np.nan
    sample = read_one(write_run(tmp_path / "a.tar", **{"bold.pyd": pickle.dumps(bold)}))
    assert sample.meta["marked"] == [1, 3]
    assert (sample.bold[:, [1, 3]] == 0).all()
    assert sample.bold.dtype == dtype
    assert np.array_equal(sample.bold[:, 0], bold[:, 0])
    assert load_corpus([tmp_path / "a.tar"]).marked[0].nonzero()[0].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("value", "where", "message"),
    [
        (np.nan, np.s_[4, 2], f"1 values that are nan or infinite, the first is parcel 3 of {N_PARCELS}"),
        (np.inf, np.s_[:, 0], f"20 values that are nan or infinite, the first is parcel 1 of {N_PARCELS}"),
        (np.nan, np.s_[:], "values that are nan"),
    ],
)
def test_other_values_that_are_no_numbers_are_refused_with_their_parcel(
    tmp_path: Path, value: float, where: Any, message: str
) -> None:
    bold = BOLD.copy()
    bold[where] = value
    with pytest.raises(InputError, match=message) as caught:
        read_one(write_run(tmp_path / "a.tar", **{"bold.pyd": pickle.dumps(bold)}))
    assert caught.value.problems[0].entity == RUN


def test_an_mdtb_trial_comes_in(tmp_path: Path) -> None:
    key = "ds-mdtb_sub-03_ses-b1_task-a_run-02_sample_007"
    members = {"bold.pyd": BOLD, "t_r.pyd": np.float32(1), "task_label.pyd": 4}
    tar = {f"{key}.{name}": pickle.dumps(value) for name, value in members.items()}
    sample = read_one(write_tar(tmp_path / "a.tar", {**tar, f"{key}.task_name": b"nBack"}))
    assert (sample.meta["label"], sample.meta["label_name"], sample.meta["number"]) == (4, "nBack", 7)
    assert sample.meta["run_key"] == "ds-mdtb_sub-03_ses-b1_task-a_run-02"


def test_an_hcp_trial_is_labelled_across_tasks(tmp_path: Path) -> None:
    key = f"{RUN}_sample_000"
    members = {
        "bold.pyd": BOLD,
        "label_across_tasks.pyd": np.int64(8),
        "label_in_task.pyd": np.int64(2),
        "t_r.pyd": np.float32(0.72),
        "task_label.pyd": np.int64(3),
    }
    tar = {f"{key}.{name}": pickle.dumps(value) for name, value in members.items()}
    texts = {f"{key}.mental_state": b"rf", f"{key}.task_name": b"MOTOR"}
    sample = read_one(write_tar(tmp_path / "a.tar", tar | texts))
    assert (sample.meta["label"], sample.meta["label_name"]) == (8, "MOTOR rf")


def test_what_is_written_in_the_layout_is_read_by_python_and_by_the_reader(tmp_path: Path) -> None:
    samples = [trial_sample(run=1, number=0, label=2), trial_sample(run=1, number=1), run_sample(run=2)]
    paths = write_lfb_shards(tmp_path, samples)
    assert [path.name for path in paths] == [f"ds-toy_sub-01_task-blocks_run-{run}.tar" for run in (1, 2)]
    found = [sample for path in paths for sample in read_shard(path)]
    for one, other in zip(found, samples, strict=True):
        assert one.key == other.key
        # LfB has float32 only; the values are those of float16.
        assert one.bold.dtype == np.float32
        assert np.array_equal(one.bold, other.bold)
        assert one.meta["t_r"] == other.meta["t_r"]
        assert one.meta.get("label") == other.meta.get("label")
    with tarfile.open(paths[0]) as tar:
        content = tar.extractfile(f"{samples[0].key}.bold.pyd").read()  # type: ignore[union-attr]
    assert np.array_equal(pickle.loads(content), samples[0].bold)
    # numpy before 1.26 has no such module.
    assert b"numpy._core" not in content


def test_writing_the_layout_again_gives_the_same_bytes(tmp_path: Path) -> None:
    (one,) = write_lfb_shards(tmp_path / "a", [trial_sample()])
    (other,) = write_lfb_shards(tmp_path / "b", [trial_sample()])
    assert one.read_bytes() == other.read_bytes()


def test_a_command_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    payload = pickle.dumps(Command(marker))
    # The payload is real: python itself would run it.
    os.system(pickle.loads(pickle.dumps("true")))
    pickle.loads(payload)
    assert marker.exists()
    marker.unlink()
    for name in ("bold.pyd", "t_r.pyd"):
        tar = write_run(tmp_path / "a.tar", **{name: payload})
        with pytest.raises(
            InputError, match=rf"{name}: refused: a pickle that names (posix|nt)\.system"
        ) as caught:
            list(read_shard(tar))
        assert (caught.value.problems[0].where, caught.value.problems[0].entity) == (str(tar), RUN)
    assert not marker.exists()


def array_pickle(shape: bytes, data: bytes = b"\x00" * 8) -> bytes:
    """Return the pickle of a float32 array whose shape is that of the instructions `shape`."""
    return b"".join(
        [
            b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01",
            shape,
            b"cnumpy\ndtype\nX\x02\x00\x00\x00f4K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff",
            b"K\x00tb\x89C" + bytes([len(data)]) + data + b"tb.",
        ]
    )


def test_an_array_that_declares_far_more_than_it_has_is_refused(tmp_path: Path) -> None:
    assert np.array_equal(load_numbers(array_pickle(b"K\x01K\x02\x86")), np.zeros((1, 2), np.float32))
    bomb = array_pickle(b"J\x00\x00\x00\x40J\x00\x00\x00\x40\x86")  # 2**30 x 2**30
    with pytest.raises(InputError, match="8 are there"):
        list(read_shard(write_run(tmp_path / "a.tar", **{"bold.pyd": bomb})))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x80\x04r\xff\xff\xff\x7f.", id="a memo as large as an address space"),
        pytest.param(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.", id="bytes that are not there"),
        pytest.param(b"\x80\x04\x96" + (2**62).to_bytes(8, "little") + b"x.", id="a bytearray that is not there"),
        pytest.param(b"\x80\x04)" + b"\x85" * 200_000 + b".", id="deep nesting"),
        pytest.param(b"\x80\x04)" + b"\x85" * 200_000 + b"q\x00h\x00\x93.", id="a name that is deep nesting"),
        pytest.param(b"\x80\x04(" + b"N(" * 100_000 + b"t" * 100_000 + b".", id="many marks"),
        pytest.param(pickle.dumps({"a": 1}), id="a dictionary"),
        pytest.param(pickle.dumps([1.0]), id="a list"),
        pytest.param(pickle.dumps("text"), id="a text"),
        pytest.param(pickle.dumps(np.array([print], object)), id="an array of objects"),
        pytest.param(pickle.dumps(np.zeros(2, "f4,i4")), id="an array of records"),
        pytest.param(pickle.dumps(np.array(["a"])), id="an array of text"),
        pytest.param(pickle.dumps(2**70), id="a number beyond 64 bits"),
        pytest.param(pickle.dumps(BOLD)[:-20], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(b"cnumpy\nndarray\n(I1000000000000\ntR.", id="numpy's constructor called at once"),
    ],
)
def test_pickles_of_anything_else_are_refused(content: bytes) -> None:
    with pytest.raises(PickleError):
        load_numbers(content)


def test_a_small_pickle_cannot_make_much_of_one_text() -> None:
    text = b"c_codecs\nencode\nq\x00X\x00\x10\x00\x00" + b"a" * 4096 + b"q\x01"
    content = b"\x80\x03" + text + b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R" * 10_000 + b"."
    with pytest.raises(PickleError, match="more bytes than it has"):
        load_numbers(content)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        BOLD,
        np.asfortranarray(BOLD),
        BOLD[::2, ::3],
        BOLD.astype(">f4"),
        BOLD.astype(np.float16),
        np.arange(5),
        np.array(3.5),
        np.float32(0.72),
        np.int64(-4),
        np.True_,
        3,
        -(2**40),
        0.5,
        True,
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'shape', '')}",
)
def test_arrays_and_numbers_of_all_protocols_come_in(value: Any, protocol: int) -> None:
    found = load_numbers(pickle.dumps(value, protocol=protocol))
    assert np.array_equal(found, value)
    assert np.asarray(found).dtype == np.asarray(value).dtype


def test_pickles_of_old_numpy_come_in() -> None:
    content = pickle.dumps(BOLD, protocol=3).replace(b"numpy._core.", b"numpy.core.")
    assert np.array_equal(load_numbers(content), BOLD)


def test_a_truncated_tar_is_refused(tmp_path: Path) -> None:
    tar = write_run(tmp_path / "a.tar")
    whole = tar.read_bytes()
    for length in (700, 1024, 2000, len(whole.rstrip(b"\0"))):
        tar.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut"):
            list(read_shard(tar))


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    content = pickle.dumps(BOLD)
    for name in (f"../{RUN}.bold.pyd", f"/{RUN}.bold.pyd", f"a/../../{RUN}.bold.pyd"):
        with pytest.raises(InputError, match="no folder"):
            list(read_shard(write_tar(tmp_path / "a.tar", {name: content})))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t_r.pyd": pickle.dumps(0.0)}, "t_r of 0"),
        ({"t_r.pyd": pickle.dumps(float("nan"))}, "t_r of nan"),
        ({"t_r.pyd": pickle.dumps(BOLD)}, "not one number"),
        ({"bold.pyd": pickle.dumps(1.0)}, "not an array"),
        ({"bold.pyd": pickle.dumps(BOLD[0])}, "not an array"),
        ({"bold.pyd": pickle.dumps(np.arange(6).reshape(2, 3))}, "not an array"),
        ({"task_label.pyd": pickle.dumps(-1)}, "label of -1"),
        ({"task_label.pyd": pickle.dumps(1.5)}, "label of 1.5"),
        ({"task_name": b"\xff\xfe"}, "decode"),
        ({"weights.pyd": pickle.dumps(1)}, "unknown member weights.pyd"),
    ],
)
def test_members_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, bytes], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_shard(write_run(tmp_path / "a.tar", **changes)))


def test_a_key_without_subject_is_refused(tmp_path: Path) -> None:
    members = {"x.bold.pyd": pickle.dumps(BOLD), "x.t_r.pyd": pickle.dumps(1.0)}
    with pytest.raises(InputError, match="no ds and no sub entity"):
        list(read_shard(write_tar(tmp_path / "a.tar", members)))
