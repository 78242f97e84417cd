"""The contract: the same everywhere, and compared where two meet."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from boldly import provenance
from boldly.provenance import Contract, check_same, differences, file_sha256
from boldly.records import InputError
from tests.samples.examples import contract


def test_a_contract_comes_back_as_it_was() -> None:
    assert Contract.from_json(contract().to_json()) == contract()


def test_a_contract_of_other_fields_is_refused() -> None:
    with pytest.raises(TypeError):
        Contract.from_json(contract().to_json().replace('"space"', '"place"'))


def test_a_contract_from_before_resampling_is_read_and_keeps_its_checksum() -> None:
    fields = json.loads(contract().to_json())
    del fields["t_r_s"], fields["mask"], fields["images"], fields["varied"]
    old = {name: value for name, value in fields.items() if name != "version"}
    sha256 = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
    assert Contract.from_json(json.dumps(fields)) == contract()
    assert contract().sha256 == sha256


def test_every_field_but_the_version_is_compared() -> None:
    for field in dataclasses.fields(Contract):
        value = getattr(contract(), field.name)
        others: dict[str, Any] = {
            "str": "other",
            "int": 7,
            "bool": not value,
            "dict[str, Any]": {"strategy": []},
            "float | None": 0.123,
            "tuple[str, ...]": ("extract",),
            "dict[str, list[Any]]": {"mask": [False, True]},
        }
        changed = contract(**{field.name: others[str(field.type)]})
        if field.name == "version":
            assert differences(contract(), changed) == []
        if field.name in ("version", "varied"):
            assert changed.sha256 == contract().sha256
        else:
            assert [line.split(":")[0] for line in differences(contract(), changed)] == [field.name]
            assert changed.sha256 != contract().sha256


def test_the_order_of_confound_options_does_not_matter() -> None:
    turned = contract(confounds=dict(reversed(contract().confounds.items())))
    assert turned.sha256 == contract().sha256
    assert differences(turned, contract()) == []


def test_a_mismatch_lists_every_difference_unless_it_is_allowed() -> None:
    other = contract(smoothing_fwhm_mm=6.0, space="T1w")
    with pytest.raises(InputError, match=r"space: .*smoothing_fwhm_mm: 3\.0 != 6\.0") as caught:
        check_same(contract(), other, "a.tar", "ds-toy_sub-01")
    problem = caught.value.problems[0]
    assert (problem.where, problem.entity) == ("a.tar", "ds-toy_sub-01")
    assert "allow_mismatch" in problem.remedy
    with pytest.raises(InputError) as caught:
        check_same(contract(), other, "a.tar", "", allow=["space"])
    assert "space:" not in str(caught.value)
    check_same(contract(), other, "a.tar", "", allow=["space", "smoothing_fwhm_mm"])


def test_of_confounds_only_the_options_that_differ_are_named() -> None:
    one = contract(confounds={"motion": "basic", "strategy": ["motion"]})
    other = contract(confounds={"motion": "basic", "strategy": ["motion", "wm_csf"]})
    assert differences(one, other) == ["confounds: strategy ['motion'] != strategy ['motion', 'wm_csf']"]


def test_contracts_that_were_put_together_keep_all_values() -> None:
    one, two, three = (contract(space=space, order=(space,)) for space in ("a", "b", "c"))
    both = one.with_another(two).with_another(one)
    assert (both.space, both.varied) == ("a", {"space": ["a", "b"], "order": [("a",), ("b",)]})
    assert both.sha256 == one.sha256
    assert Contract.from_json(both.to_json()) == both
    # Data of any of them fit what was made of all, and not the other way round.
    assert differences(both, one) == differences(both, two) == []
    assert differences(both, three)[0] == "space: 'a' or 'b' != 'c'"
    assert differences(one, both)[0] == "space: 'a' != 'a' or 'b'"
    assert one.with_another(one) is one


def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"boldly")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"boldly").hexdigest()


def test_the_commit_is_that_of_boldly_not_of_a_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "environment/boldly/provenance.py"
    module.parent.mkdir(parents=True)
    module.touch()
    monkeypatch.setattr(provenance, "__file__", str(module))
    me = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], [*me, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert provenance.environment()["git_commit"] is None
    for words in (["add", "."], [*me, "commit", "-q", "-m", "y"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert len(provenance.environment()["git_commit"]) == 40
