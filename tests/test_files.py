"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from boldly.files import atomic_path, read_foreign_table, read_json, read_tsv, write_json, write_tsv


def test_a_file_takes_its_name_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.nii.gz"
    with atomic_path(path) as temporary:
        temporary.write_text("x")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".a.nii.gz")
    assert path.read_text() == "x"
    assert list(path.parent.iterdir()) == [path]


def test_after_an_error_the_old_file_stays_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_folder_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with atomic_path(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [item.name for item in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_of_the_final_name(tmp_path: Path) -> None:
    def full(inner: str) -> None:
        with atomic_path(tmp_path / "model") as temporary:
            temporary.mkdir()
            if inner:
                with atomic_path(temporary / inner):
                    raise OSError(errno.ENOSPC, "No space left on device")
            raise OSError(errno.ENOSPC, "No space left on device")

    for inner in ("", "weights"):
        with pytest.raises(OSError, match="No space left") as caught:
            full(inner)
        assert Path(caught.value.filename) == tmp_path / "model" / inner
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    node = platform.node().replace(".", "_")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stays = [
        f".{node}-{os.getpid()}-0a0a0a0a.a.tsv",  # a process that is at work
        f".{node}-{ended.pid}-0a0a0a0a.b.tsv",  # of another file
        ".elsewhere-1-0a0a0a0a.a.tsv",  # of another node, new
    ]
    goes = [f".{node}-{ended.pid}-0a0a0a0a.a.tsv", f".{node}-{ended.pid}-0b0b0b0b.a.tsv", ".elsewhere-1-old.a.tsv"]
    for name in stays + goes:
        (tmp_path / name).write_text("half")
    (tmp_path / goes[1]).unlink()
    (tmp_path / goes[1]).mkdir()
    os.utime(tmp_path / goes[2], (0, 0))
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert {item.name for item in tmp_path.iterdir()} == {"a.tsv", *stays}


def test_json_comes_back_and_refuses_what_json_has_no_word_for(tmp_path: Path) -> None:
    content = {"Zürich": [1, 0.5, None], "b": {}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert "Zürich" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_tables_keep_leading_zeros_and_missing_values(tmp_path: Path) -> None:
    table = pd.DataFrame({"run": ["01", "1", None], "value": [1.5, float("nan"), 3.0]})
    write_tsv(tmp_path / "a.tsv", table)
    assert (tmp_path / "a.tsv").read_bytes() == b"run\tvalue\n01\t1.5\n1\tn/a\nn/a\t3.0\n"
    found = read_tsv(tmp_path / "a.tsv", ("run",))
    assert found["run"].tolist()[:2] == ["01", "1"]
    assert found["run"].isna().tolist() == [False, False, True]
    assert found["value"].isna().tolist() == [False, True, False]


def test_words_that_other_readers_take_for_missing_stay_words(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("name\nNA\nnone\nn/a\n")
    found = read_tsv(tmp_path / "a.tsv")["name"]
    assert found.tolist()[:2] == ["NA", "none"]
    assert found.isna().tolist() == [False, False, True]


def _replace(arguments: tuple[Path, int]) -> None:
    path, number = arguments
    with atomic_path(path) as temporary:
        temporary.mkdir()
        for name in range(20):
            (temporary / str(name)).write_text(str(number))


def test_processes_may_replace_the_same_folder_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_replace, [(path, number) for number in range(200)]))
    # One of them, whole.
    assert len({item.read_text() for item in path.iterdir()}) == 1
    assert len(list(path.iterdir())) == 20
    assert list(tmp_path.iterdir()) == [path]


def test_colleagues_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    command = (
        "import os; os.umask(0o027); import numpy as np; from boldly.files import atomic_path; "
        "from safetensors.numpy import save_file\n"
        "with atomic_path('x.safetensors') as path: save_file({'a': np.zeros(1)}, path)"
    )
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_tab_behind_each_row_moves_no_column(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("onset\tduration\tstate\n0\t10\tface\t\n20\t10\thouse\t\n")
    table = read_foreign_table(path, dtype="str")
    assert table.to_dict("list") == {"onset": ["0", "20"], "duration": ["10", "10"], "state": ["face", "house"]}


@pytest.mark.parametrize("rows", ["0\t10\tface\tx\n20\t10\thouse\ty\n", "0\t10\tface\n20\t10\thouse\tx\n"])
def test_more_cells_than_the_header_has_are_refused(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("onset\tduration\tstate\n" + rows)
    with pytest.raises(pd.errors.ParserError):
        read_foreign_table(path, dtype="str")


@pytest.mark.parametrize("words", [('"hello', "a", '"bye', "b"), ('"hello', "a", "b", "c"), ("x", '"', "y", '"')])
def test_a_quote_at_the_begin_of_a_cell_swallows_no_rows(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("onset\tword\n" + "".join(f"{number}\t{word}\n" for number, word in enumerate(words)))
    table = read_foreign_table(path, dtype="str")
    assert table.to_dict("list") == {"onset": ["0", "1", "2", "3"], "word": list(words)}


def test_a_table_that_is_quoted_throughout_is_read_without_the_quotes(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text('"onset"\t"state"\n"0"\t"face, left"\n')
    assert read_foreign_table(path, dtype="str").to_dict("list") == {"onset": ["0"], "state": ["face, left"]}
