import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from boldly.config import PretrainOptions
from boldly.models.build import build_network, build_objective, pretraining_config, window_options
from boldly.records import InputError
from boldly.samples.windows import Windows
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.loop import Interrupted, adamw, fit
from boldly.training.processes import Processes, share_batch
from boldly.training.validation import UpstreamValidation
from tests.training import synthetic


def options(**changes):
    values = {"framework": "csm", "layers": 1, "width": 16, "heads": 2, "steps": 24, "batch_size": 8}
    values |= {"learning_rate": 3e-3, "evaluate_every": 6, "checkpoint_every": 5, "window_frames": (6, 12)}
    return PretrainOptions.model_validate(values | {"dropout": 0.2} | changes)


@pytest.fixture(scope="module")
def corpus():
    return synthetic.corpus([60] * 4, datasets=["a", "a", "b", "b"])


class StoppedError(RuntimeError):
    pass


class StoppedWindows(Windows):
    """Windows that end the training like a kill does: in the middle of a step, without notice."""

    stop_at: int | None = None

    def __getitems__(self, indices):
        if self.stop_at is not None and indices[0] // self.options.batch_size == self.stop_at:
            raise StoppedError
        return super().__getitems__(indices)


def objective_of(chosen):
    return build_objective(build_network(pretraining_config(chosen, 16), 1))


def train(corpus, folder, chosen=None, *, stop_at=None, validate=True, **settings):
    chosen = chosen or options()
    windows = StoppedWindows(
        corpus, window_options(chosen, chosen.batch_size), 1, chosen.steps * chosen.batch_size
    )
    windows.stop_at = stop_at
    validation = UpstreamValidation(Windows(corpus, window_options(chosen, 8), 99, 16), 8) if validate else None
    return fit(
        objective_of(chosen),
        windows,
        chosen,
        name="toy",
        validate=validation,
        seed=1,
        folder=folder,
        **settings,
    )


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stop_at", [3, 13, 20])
def test_a_killed_training_goes_on_to_the_same_weights_bit_for_bit(corpus, tmp_path, stop_at):
    whole = train(corpus, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(corpus, tmp_path / "killed", stop_at=stop_at)
    again = train(corpus, tmp_path / "killed")
    assert same(whole.weights, again.weights)
    assert again.train_rows == whole.train_rows
    assert again.eval_rows == whole.eval_rows
    assert again.step == whole.step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_stop_saves_first(corpus, tmp_path, number):
    whole = train(corpus, tmp_path / "whole")

    class Terminated(StoppedWindows):
        def __getitems__(self, indices):
            if indices[0] == 8 * 8:
                signal.raise_signal(number)
            return super().__getitems__(indices)

    chosen = options()
    windows = Terminated(corpus, window_options(chosen, 8), 1, chosen.steps * 8)
    validation = UpstreamValidation(Windows(corpus, window_options(chosen, 8), 99, 16), 8)
    with pytest.raises(Interrupted) as caught:
        fit(
            objective_of(chosen),
            windows,
            chosen,
            name="toy",
            validate=validation,
            seed=1,
            folder=tmp_path / "two",
        )
    assert caught.value.code == 128 + number
    # Step 9 was running, the next checkpoint due at 10.
    assert CheckpointFolder(tmp_path / "two" / "checkpoints").steps() == [5, 9]
    assert same(whole.weights, train(corpus, tmp_path / "two").weights)


def test_a_checkpoint_that_was_cut_is_not_used(corpus, tmp_path):
    with pytest.raises(StoppedError):
        train(corpus, tmp_path, stop_at=12)
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.steps() == [5, 10]
    (folder.checkpoint(10) / "progress.json").unlink()
    (folder.checkpoint(10) / "model.safetensors").write_bytes(b"cut")
    whole = train(corpus, tmp_path / "whole")
    assert same(whole.weights, train(corpus, tmp_path).weights)


def test_checkpoints_of_another_config_are_refused_with_the_difference(corpus, tmp_path):
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    checkpoints.claim({"options": {"width": 16, "steps": 24}})
    checkpoints.claim({"options": {"width": 32, "steps": 24}})  # nothing trained yet: no harm
    with pytest.raises(StoppedError):
        train(corpus, tmp_path, stop_at=8)
    with pytest.raises(InputError) as caught:
        checkpoints.claim({"options": {"width": 64, "steps": 24}})
    assert [problem.entity for problem in caught.value.problems] == ["options.width"]
    assert "has 32, this one 64" in str(caught.value)


def test_a_training_is_not_gone_on_with_once_its_revision_was_raised(corpus, tmp_path):
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    checkpoints.claim({"options": {"width": 16}})
    with pytest.raises(StoppedError):
        train(corpus, tmp_path, stop_at=8)
    # Checkpoints of earlier versions do not tell it.
    checkpoints.claim({"options": {"width": 16}, "revision": 9})
    with pytest.raises(InputError, match="has 9, this one 10"):
        checkpoints.claim({"options": {"width": 16}, "revision": 10})
    assert checkpoints.steps() == [5]


def test_checkpoints_without_their_experiment_are_those_of_none(corpus, tmp_path):
    # A deletion that was cut off may leave them: those of another config would be gone on with.
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    with pytest.raises(StoppedError):
        train(corpus, tmp_path, stop_at=8)
    assert checkpoints.steps() == [5]
    checkpoints.claim({"options": {"width": 16}})
    assert checkpoints.steps() == []


def test_a_deletion_that_is_cut_off_leaves_nothing_that_looks_like_a_checkpoint(corpus, tmp_path, monkeypatch):
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    checkpoints.claim({"options": {"width": 16}})
    with pytest.raises(StoppedError):
        train(corpus, tmp_path, stop_at=8)

    def cut_off(folder, **settings):
        if folder.exists():
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", cut_off)
        with pytest.raises(StoppedError):
            checkpoints.delete()
    assert checkpoints.steps() == []
    assert not checkpoints.path.exists()
    checkpoints.claim({"options": {"width": 16}})
    checkpoints.delete()
    assert [path.name for path in tmp_path.iterdir() if "checkpoints" in path.name] == []


def test_the_best_validation_gives_the_weights(corpus, tmp_path):
    # A learning rate that rises to the end and far too high: the last step is not the best.
    outcome = train(corpus, tmp_path, options(learning_rate=1.0, warmup_fraction=1.0, evaluate_every=1))
    losses = {row["step"]: row["loss"] for row in outcome.eval_rows}
    assert outcome.step == min(losses, key=losses.__getitem__)
    assert outcome.step < 24
    objective = objective_of(options())
    objective.network.load_state_dict(outcome.weights)
    validation = UpstreamValidation(Windows(corpus, window_options(options(), 8), 99, 16), 8)
    with torch.inference_mode():
        assert validation(objective.eval(), Processes())["loss"] == pytest.approx(losses[outcome.step], abs=1e-6)


def test_the_weights_before_the_first_step_are_never_the_best(corpus, tmp_path):
    # Far too high a learning rate: every step makes the network worse.
    worse = options(learning_rate=1.0, warmup_fraction=0.0, evaluate_every=1, steps=4, framework="autoencoding")
    outcome = train(corpus, tmp_path, worse, validate_first=True)
    losses = {row["step"]: row["loss"] for row in outcome.eval_rows}
    assert min(losses, key=losses.__getitem__) == 0
    assert outcome.step == min(range(1, 5), key=losses.__getitem__)
    assert not outcome.improved
    # The end is there as a checkpoint, for those who keep it all the same: no step is repeated.
    again = train(corpus, tmp_path, worse, validate_first=True, stop_at=0)
    assert same(outcome.weights, again.weights)
    assert again.eval_rows == outcome.eval_rows


def test_a_training_that_makes_the_network_better_says_so(corpus):
    assert train(corpus, None, validate_first=True).improved
    assert train(corpus, None).improved  # nothing to compare with


def test_without_validation_the_last_step_gives_the_weights(corpus):
    outcome = train(corpus, None, validate=False)
    assert outcome.step == 24
    assert outcome.eval_rows == []


def test_histories_are_written_while_training(corpus, tmp_path):
    with pytest.raises(StoppedError):
        train(corpus, tmp_path, stop_at=14)
    table = pd.read_csv(tmp_path / "train_history.csv")
    assert list(table.columns) == ["step", "loss", "learning_rate"]
    assert table["step"].tolist() == list(range(1, 15))
    evaluation = pd.read_csv(tmp_path / "eval_history.csv")
    assert evaluation["step"].tolist() == [6, 12]
    assert {"loss", "l1", "l1_zero", "skill", "skill_a", "l1_a", "l1_b", "l1_zero_a"} <= set(evaluation.columns)


def test_the_learning_rate_rises_and_falls_linearly(corpus):
    rows = train(corpus, None, options(steps=20, warmup_fraction=0.25), validate=False).train_rows
    rates = np.array([row["learning_rate"] for row in rows])
    expected = 3e-3 * np.minimum(np.arange(20) / 5, (20 - np.arange(20)) / 15)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_the_optimiser_has_its_own_beta2_and_spares_vectors_from_decay():
    """Defect 8.1: beta 2 must not take the value of beta 1."""
    chosen = options(beta1=0.8, beta2=0.97, weight_decay=0.3)
    matrices, vectors = adamw(objective_of(chosen), chosen).param_groups
    assert matrices["betas"] == (0.8, 0.97)
    assert matrices["weight_decay"] == 0.3
    assert vectors["weight_decay"] == 0
    assert all(parameter.ndim == 1 for parameter in vectors["params"])


def test_a_batch_in_turns_gives_the_same_steps_as_at_once(corpus):
    # Without dropout: other units would drop out of a batch that is computed in turns.
    whole, turns = (train(corpus, None, options(dropout=0.0, device_batch_size=size)) for size in (None, 2))
    assert len(whole.train_rows) == len(turns.train_rows) == 24
    for one, other in zip(whole.train_rows, turns.train_rows, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    # Another order of summation; AdamW enlarges rounding.
    assert all(torch.allclose(whole.weights[name], turns.weights[name], atol=1e-4) for name in whole.weights)


def test_a_share_goes_to_each_process_in_turns():
    shares = share_batch(options(batch_size=24, device_batch_size=4), 3, "toy")
    assert (shares.batch, shares.device_batch, shares.turns) == (24, 4, 2)
    numbers = [list(shares.numbers(2, 4, rank)) for rank in range(3)]
    assert numbers[1] == [range(56, 60), range(60, 64), range(80, 84), range(84, 88)]
    seen = sorted(number for rank in numbers for part in rank for number in part)
    assert seen == list(range(48, 96))
    # A share that is smaller than what a device could take.
    assert share_batch(options(batch_size=24, device_batch_size=100), 3, "toy").turns == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 8}, "8 windows cannot be shared evenly by 3 processes"),
        ({"batch_size": 24, "device_batch_size": 5}, "the 8 windows of a process cannot be taken evenly by 5"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        share_batch(options(**changes), 3, "toy")


def test_divergence_names_the_samples_of_the_batch(corpus):
    broken = synthetic.corpus([60] * 3)
    broken.frames[60:120] = np.nan  # the second run
    with pytest.raises(InputError) as caught:
        train(broken, None, options(batch_size=2), validate=False)
    (problem,) = caught.value.problems
    assert broken.keys[1] in problem.where
    assert "is not a number" in problem.message
    assert "step 24" not in problem.message  # noticed when it happened, not at the end


def test_validation_adds_up_over_processes(corpus):
    chosen = options(framework="sequence_bert")
    objective = objective_of(chosen).eval()
    validation = UpstreamValidation(Windows(corpus, window_options(chosen, 8), 99, 40), 8)
    with torch.inference_mode():
        alone = validation(objective, Processes())
        tables: list[torch.Tensor] = []

        def keep(table):
            tables.append(table.clone())
            return table

        for rank in range(2):
            validation(objective, Processes(rank, 2, keep))
        both = validation(objective, Processes(0, 2, lambda table: tables[0] + tables[1]))
    assert both == pytest.approx(alone)


def test_validation_weighs_windows_by_dataset(corpus):
    chosen = options()
    objective = objective_of(chosen).eval()
    windows = Windows(corpus, window_options(chosen, 8), 99, 40)
    with torch.inference_mode():
        row = UpstreamValidation(windows, 8)(objective, Processes())
    share = np.mean(np.array(corpus.datasets)[windows.runs(range(40))] == "a")
    assert row["l1"] == pytest.approx(share * row["l1_a"] + (1 - share) * row["l1_b"])
    assert row["skill"] == pytest.approx(1 - row["l1"] / row["l1_zero"])
