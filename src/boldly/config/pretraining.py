"""Section pretrain: upstream experiments."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    model_validator,
)

from boldly.config.sections import ExperimentName, Fraction, Name, Section, Seed
from boldly.config.signals import ContractField

Framework = Literal["autoencoding", "csm", "sequence_bert", "network_bert", "masked_autoencoding"]

Variant = Literal["boldly", "lfb"]

# The upstream experiment that baselines start from: linear pretraining.
COMPONENTS = "components"

# Two windows and three special tokens must fit into the 512 positions of LfB's networks.
_LFB_LONGEST = 254


class OptimiserOptions(Section):
    """What pretraining and adaptation share: AdamW with linear warm-up and decay."""

    steps: int = Field(10_000, ge=1, description="Number of steps of the optimiser.")
    batch_size: int = Field(
        64, ge=1, description="Windows (or trials) of one step, over all processes: the global batch."
    )
    device_batch_size: int | None = Field(
        None,
        ge=1,
        description="Windows (or trials) that a process (a GPU) computes at once; where its share of the batch is "
        "larger, it adds up gradients of several turns. null: its whole share at once.",
    )
    learning_rate: float = Field(
        1e-4, gt=0, description="Largest learning rate; it rises to this value and then falls to zero."
    )
    warmup_fraction: Fraction = Field(0.01, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW weight decay.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW beta 1.")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW beta 2.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    dropout: Fraction = Field(
        0.1, description="Share of the values in the network that training sets to zero at random (dropout)."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number type of the computations; auto: bfloat16 on a GPU that has it, else float32."
    )
    evaluate_every: int | None = Field(
        None, ge=1, description="Steps between validations; default: a tenth of all steps, 1,000 at most."
    )
    checkpoint_every: int = Field(1000, ge=1, description="Steps between checkpoints.")
    seed: Seed = Field(1234, description="Seed of weights, windows and dropout.")

    @property
    def validation_steps(self) -> int:
        """Steps between validations: a short training that is validated but once may have overfitted by then."""
        return self.evaluate_every or min(1000, max(1, self.steps // 10))


class PretrainOptions(OptimiserOptions):
    """An upstream experiment."""

    framework: Framework | Literal["components"] = Field(
        description="What is predicted, and by which network. components: no network, but principal components of "
        "the runs, `width` of them."
    )
    variant: Variant = Field(
        "boldly", description="Networks and objectives: of boldly, or (lfb) the published ones as they were."
    )
    layers: int = Field(4, ge=1, description="Layers (autoencoding: of encoder and of decoder).")
    width: int = Field(768, ge=8, description="Width of the hidden states.")
    heads: int = Field(12, ge=1, description="Attention heads (not for autoencoding).")
    embedding_layers: int = Field(
        1, ge=1, description="Layers that turn a frame into a vector, and back (variant lfb; else 1)."
    )
    window_frames: tuple[int, int] = Field(
        (10, 50), description="Shortest and longest window, frames (lfb: the longest stays below, 49 of 50)."
    )
    start: Literal["components", "random"] = Field(
        "components",
        description="What the embedding of frames starts from: principal components of the training runs, a "
        "quarter as many as parcels, or random weights (lfb: always random).",
    )
    pairs: bool = Field(
        False,
        description="Read two windows at a time and tell whether the second follows the first, as BERT and the "
        "published system do (the BERT frameworks; lfb always does).",
    )
    mask_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of what is masked (hidden); null: 0.2 (the BERT frameworks) or 0.5 "
        "(masked_autoencoding).",
    )
    mask_span: int = Field(
        4, ge=1, description="Length of the masked spans, frames (sequence_bert, masked_autoencoding)."
    )
    parcel_groups: int = Field(
        8, ge=2, description="Groups of parcels in a frame, each of which is seen or masked (masked_autoencoding)."
    )
    # Of the next frame alone, hidden states know the change and lose the pattern that lasts, which is what tells
    # mental states apart.
    horizons_s: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        description="Times ahead, s, of the coming frames whose leading components, all together, are predicted "
        "beside the next frame (csm).",
    )
    validation_windows: int = Field(512, ge=1, description="Number of windows of each validation.")
    keep_untrained: bool = Field(
        False,
        description="Keep the best weights of the training even if no validation was better than the one before "
        "its first step; false: stop with an error then.",
    )
    stream_shards: int | None = Field(
        None,
        ge=1,
        description="Read this many shards at a time, the next ones in the background; null: all are packed into "
        "one file, which all processes share.",
    )
    stream_steps: int = Field(
        100, ge=1, description="Steps on these shards before the next ones are taken (stream_shards)."
    )
    deepspeed: str | None = Field(
        None, description="File with settings of DeepSpeed (config/deepspeed); null: without DeepSpeed."
    )
    compile: bool = Field(
        False,
        description="Compile the network (torch.compile): a minute or two, then faster steps; needs g++.",
    )
    datasets: list[Name] | None = Field(None, description="Upstream datasets; default: all.")
    subjects_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of each dataset's training subjects; those of a smaller share are also in every "
        "larger one.",
    )
    allow_mismatch: list[ContractField] = Field(
        [],
        description="Fields in which the contracts of the runs may differ: `[confounds]` where datasets have "
        "strategies of their own. The model has the contract of the first run.",
    )
    initialise: str | None = Field(
        None,
        description="Start from the weights of an upstream experiment, model folder, local GPT-2 or BERT folder.",
    )
    repeats: list[Seed] = Field(
        [],
        description="Further seeds: the training is repeated as `<name>_seed-<seed>`, and decoders are adapted "
        "from each, so that intervals also cover what is random in pretraining.",
    )
    track: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        ["tensorboard"], description="Where the histories are shown beside the CSV files."
    )

    @property
    def has_steps(self) -> bool:
        """Whether it is trained by gradient steps, rather than fitted in closed form."""
        return self.framework != "components"

    @model_validator(mode="before")
    @classmethod
    def _horizons_in_seconds(cls, content: Any) -> Any:
        if isinstance(content, dict) and "horizons" in content:
            raise ValueError("horizons: give horizons_s instead, in seconds (frames times the repetition time)")
        return content

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.seed in self.repeats or len(set(self.repeats)) < len(self.repeats):
            raise ValueError(f"repeats {self.repeats}: the seeds must differ from each other and from {self.seed}")
        if self.framework not in ("autoencoding", "components") and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        shortest, longest = self.window_frames
        if not 2 <= shortest <= longest:
            raise ValueError(f"window_frames {list(self.window_frames)}: need 2 <= shortest <= longest")
        if self.variant != "lfb" and self.embedding_layers > 1:
            raise ValueError("embedding_layers above 1 need variant lfb")
        if self.variant == "lfb" and not shortest < longest <= _LFB_LONGEST:
            raise ValueError(f"window_frames: lfb needs shortest < longest <= {_LFB_LONGEST}")
        return self


class GridOptions(Section):
    """Upstream experiments that differ in a few options: a size search, or data scaling."""

    options: dict[str, Any] = Field(description="What all of them share.")
    vary: dict[str, list[Any]] = Field(
        min_length=1,
        description="Option to its values; each combination is the experiment `<grid>_<option>-<value>_..`.",
    )

    def experiments(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the options of each combination by name."""
        combinations = itertools.product(
            *([(option, value) for value in values] for option, values in self.vary.items())
        )
        return {
            "_".join([name, *(f"{option}-{_word(value)}" for option, value in combination)]): {
                **self.options,
                **dict(combination),
            }
            for combination in combinations
        }


def _word(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


class PretrainSection(Section):
    """All upstream experiments."""

    experiments: dict[ExperimentName, PretrainOptions] = Field({}, description="By name.")
    grids: dict[ExperimentName, GridOptions] = Field({}, description="Sets of experiments by name.")

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, content: Any) -> Any:
        """Write grids and repeats out as experiments."""
        if not isinstance(content, dict) or not isinstance(content.get("experiments") or {}, dict):
            return content
        experiments = dict(content.get("experiments") or {})
        for name, grid in (content.get("grids") or {}).items():
            for key, options in GridOptions.model_validate(grid).experiments(name).items():
                experiments.setdefault(key, options)
        for name, options in list(experiments.items()):
            given = options.model_dump(exclude_unset=True) if isinstance(options, BaseModel) else options
            repeats = given.get("repeats") if isinstance(given, dict) else None
            for seed in repeats if isinstance(repeats, list) else ():
                experiments.setdefault(repeat_name(name, seed), {**given, "seed": seed, "repeats": []})
        if experiments:
            # What baselines look at: it meets the same runs.
            given = [options for options in experiments.values() if isinstance(options, dict)]
            allowed = sorted({field for options in given for field in options.get("allow_mismatch") or ()})
            linear = {"framework": "components", "width": 64, "allow_mismatch": allowed}
            experiments.setdefault(COMPONENTS, linear)
        return {**content, "experiments": experiments}


def repeat_name(name: str, seed: int) -> str:
    """Return what the repetition of an upstream experiment with another seed is called."""
    return f"{name}_seed-{seed}"
