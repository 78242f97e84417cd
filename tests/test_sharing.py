"""Networks go to folders and hubs and come back: pinned, checked, and without pickles."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from boldly import Network, sharing
from boldly.cli import main
from boldly.decoding import package
from boldly.files import read_json, write_json
from boldly.records import InputError
from tests.hub import Hub, running_hub
from tests.training import synthetic

NAME = "lab/csm-small"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small pretrained network, with a pickle that somebody left there."""
    (folder,) = synthetic.pretrained_models(tmp_path_factory.mktemp("models"), [("csm", 1)])
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub, with a cache of its own."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with running_hub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def states(network: Network) -> np.ndarray:
    return network.encode(np.random.default_rng(0).standard_normal((30, 16)), t_r=2.0)


def test_a_network_is_loaded_from_its_folder(model: Path) -> None:
    network = Network.from_pretrained(model)
    # 30 frames, in windows of 12; 16 is the width.
    assert states(network).shape == (30, 16)
    assert np.isfinite(states(network)).all()
    assert network.contract.n_parcels == 16
    with pytest.raises(ValueError, match=r"need \(T, 16\)"):
        network.encode(np.zeros((30, 4)), t_r=2.0)


def test_a_folder_is_shared_without_pickles_and_checked(model: Path, tmp_path: Path) -> None:
    assert main(["push", str(model), "--to", str(tmp_path / "shared")]) == 0
    names = {path.name for path in (tmp_path / "shared").iterdir()}
    assert {"model.safetensors", "config.json", "contract.json", "README.md", "checksums.json"} <= names
    assert "pytorch_model.bin" not in names
    assert not (model / "checksums.json").exists()
    assert main(["pull", str(tmp_path / "shared"), "--output", str(tmp_path / "mine")]) == 0
    np.testing.assert_array_equal(
        states(Network.from_pretrained(tmp_path / "mine")), states(Network.from_pretrained(model))
    )
    with (tmp_path / "shared" / "contract.json").open("a") as file:
        file.write(" ")
    (tmp_path / "shared" / "basis.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        Network.from_pretrained(tmp_path / "shared")
    assert {Path(problem.where).name: problem.message for problem in caught.value.problems} == {
        "contract.json": "not the file that was shared (checksum)",
        "basis.safetensors": "missing",
    }


def test_a_network_goes_to_a_hub_and_comes_back(
    model: Path, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(model), "--to", NAME]) == 0
    ((first, files),) = hub.commits[NAME].items()
    assert "model.safetensors" in files
    assert "pytorch_model.bin" not in files
    assert f"revision {first}" in capsys.readouterr().out
    assert sorted(path.name for path in model.parent.glob(".*")) == []
    with caplog.at_level(logging.INFO):
        network = Network.from_pretrained(NAME)
    assert f"revision {first}" in caplog.text
    np.testing.assert_array_equal(states(network), states(Network.from_pretrained(model)))
    # A later commit does not change what a pinned revision gives.
    hub.commits[NAME]["f" * 40] = {**files, "config.json": b"{}"}
    np.testing.assert_array_equal(states(Network.from_pretrained(NAME, revision=first)), states(network))
    assert main(["pull", NAME, "--revision", first, "--output", str(tmp_path / "pulled")]) == 0
    assert read_json(tmp_path / "pulled" / "source.json") == {"repository": NAME, "revision": first}
    states(Network.from_pretrained(tmp_path / "pulled"))
    with pytest.raises(InputError, match="checksum"):
        Network.from_pretrained(NAME)


def test_what_a_killed_push_left_is_not_uploaded(model: Path, hub: Hub) -> None:
    staged = model.with_name(f".{model.name}.push")
    staged.mkdir()
    (staged / "old.safetensors").write_bytes(b"of another model")
    assert main(["push", str(model), "--to", NAME]) == 0
    (files,) = hub.commits[NAME].values()
    assert "old.safetensors" not in files
    assert not staged.exists()


def test_what_a_hub_does_not_have_is_said_in_a_sentence(hub: Hub) -> None:
    with pytest.raises(InputError, match="RepositoryNotFoundError") as caught:
        sharing.folder_of("lab/none")
    assert "check name, revision, network and login" in str(caught.value)


def test_a_hub_that_is_not_reached_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(InputError, match="ConnectError") as caught:
        sharing.folder_of("lab/none")
    assert "if a folder is meant, there is none of this name" in str(caught.value)


def test_a_repository_with_pickles_alone_is_refused(hub: Hub) -> None:
    hub.commits["lab/old"] = {"a" * 40: {"pytorch_model.bin": b"a pickle", "config.json": b"{}"}}
    with pytest.raises(InputError, match="pickles are not read"):
        sharing.folder_of("lab/old")
    assert not any("pytorch_model.bin" in request for request in hub.requests)


def test_what_is_no_model_is_not_shared(tmp_path: Path) -> None:
    write_json(tmp_path / "some" / "config.json", {})
    with pytest.raises(InputError, match="no network or decoder"):
        sharing.push(tmp_path / "some", tmp_path / "there")
    with pytest.raises(InputError, match="no such folder"):
        sharing.folder_of(tmp_path / "nowhere")
    with pytest.raises(InputError, match="a folder has no revisions"):
        sharing.folder_of(tmp_path / "some", revision="main")


def test_a_folder_that_is_no_copy_is_never_replaced(model: Path, tmp_path: Path) -> None:
    others = tmp_path / "networks"
    (others / "mine").mkdir(parents=True)
    (others / "mine/notes.txt").write_text("of years")
    for arguments in (["push", str(model), "--to"], ["pull", str(model), "--output"]):
        assert main([*arguments, str(others)]) == 1
        # A network of one's own is no copy either: its checkpoints would go.
        assert main([*arguments, str(model)]) == 1
        for _ in range(2):
            assert main([*arguments, str(tmp_path / "copy")]) == 0
    with pytest.raises(InputError, match="it holds mine: no copy"):
        package.run(source=tmp_path, output=others)
    assert (others / "mine/notes.txt").read_text() == "of years"
    assert (model / "pytorch_model.bin").exists()
