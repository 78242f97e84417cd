"""Section adapt: downstream experiments, their baselines and controls."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import (
    BaseModel,
    Field,
    model_validator,
)

from boldly.config.pretraining import COMPONENTS, OptimiserOptions, Variant
from boldly.config.sections import ExperimentName, Name, Section, Seed
from boldly.config.signals import ContractField

ReadOut = Literal["mean", "slices", "leading", "covariance", "power", "tangent", "correlation"]

ClassifierName = Literal["logistic", "lda", "ridge", "mlp"]

LayerChoice = Literal["all", "first", "middle", "last"]

Baseline = Literal[
    "linear",
    "mean_mlp",
    "mean_logistic",
    "mean_lda",
    "components_logistic",
    "components_lda",
    "covariance_lda",
    "connectivity",
    "tangent",
    "components",
]

# What a probe chooses from unless the config says otherwise: see docs/decoders.md for what was tried.
_READ_OUTS = ["slices+covariance", "tangent"]

_PENALTIES = [3.0, 10.0, 1.0, 0.3]


class ProbeBaseline(NamedTuple):
    """A baseline that is fitted in closed or convex form.

    Attributes
    ----------
    encoder : {"signal", "components"}
        The parcels themselves, or their principal components over the upstream runs.
    read_outs : list of str
        As in `AdaptOptions`.
    classifier : str
        As in `AdaptOptions`.
    """

    encoder: Literal["signal", "components"]
    read_outs: list[str]
    classifier: ClassifierName


PROBE_BASELINES: dict[str, ProbeBaseline] = {
    "mean_logistic": ProbeBaseline("signal", ["mean"], "logistic"),
    "mean_lda": ProbeBaseline("signal", ["mean"], "lda"),
    "components_logistic": ProbeBaseline("components", ["slices"], "logistic"),
    "components_lda": ProbeBaseline("components", ["slices"], "lda"),
    "covariance_lda": ProbeBaseline("components", ["power", "covariance"], "lda"),
    "connectivity": ProbeBaseline("signal", ["correlation"], "logistic"),
    "tangent": ProbeBaseline("components", ["tangent"], "logistic"),
    # How many components are worth reading differs between data sets; networks choose their width by learning.
    "components": ProbeBaseline("components", [*_READ_OUTS, "leading+covariance"], "logistic"),
}


class AdaptOptions(OptimiserOptions):
    """A downstream experiment: a pretrained network, an untrained one, the same from scratch, or a baseline.

    There are two ways to make a decoder of a network (`method`). A probe leaves the network as it is: trials are
    encoded once, read-outs turn the states of a trial into features, and a classifier is fitted to them in closed
    or convex form; read-outs, layers, classifier and penalty are chosen by validation. The other way, that of the
    published system, trains all weights by gradient steps. Fine-tuning does one after the other. Options such as
    steps, batch_size and learning_rate are for gradient steps.
    """

    pretrained: str | None = Field(None, description="Upstream experiment (or model folder) to start from.")
    untrained: str | None = Field(
        None,
        description="Upstream experiment whose network keeps its random weights, as a probe.",
    )
    scratch: str | None = Field(
        None, description="Upstream experiment whose network starts untrained and is trained by gradient steps."
    )
    baseline: Baseline | None = Field(
        None,
        description="Decoder without a network. mean_: logistic regression or shrinkage LDA on the mean signal; "
        "components_: the same on time slices of principal components of the upstream runs (without pretraining, "
        "of the training trials); covariance_lda: LDA on covariances of these components, lagged or not; "
        "connectivity: correlations of all parcels; tangent: covariances of the components as matrix logarithms; "
        "components: read-outs of the components, chosen as for networks. By gradient steps: linear (over time "
        "and parcels, as in the published system), mean_mlp (on the mean signal).",
    )
    members: list[ExperimentName] | None = Field(
        None,
        min_length=2,
        description="Downstream experiments, all of them probes, that are one decoder together (see `combine`).",
    )
    method: Literal["probe", "finetune", "network"] = Field(
        "probe",
        description="How a pretrained network becomes a decoder. probe: its weights stay, and a classifier is "
        "fitted to its states; finetune: the probe is trained on, as long as trials that are left out gain by "
        "it; network: all weights are trained from the first step on.",
    )
    read_outs: list[str] = Field(
        _READ_OUTS,
        min_length=1,
        description=f"Read-outs of a probe to choose from, of {', '.join(get_args(ReadOut))}; "
        "joined by + they are used together.",
    )
    layers: list[LayerChoice] = Field(["all"], min_length=1, description="Layers of a probe to choose from.")
    classifiers: list[ClassifierName] = Field(
        ["logistic"], min_length=1, description="Classifiers of a probe to choose from."
    )
    penalties: list[Annotated[float, Field(gt=0)]] = Field(
        _PENALTIES,
        min_length=1,
        description="Penalties on squared weights to choose from (the first where nothing can be left out); "
        "lda finds its shrinkage by itself.",
    )
    combine: Literal["weighted", "mean", "best"] = Field(
        "weighted",
        description="What is made of several members: the mean of their probabilities, weighted by how well each "
        "validates; their plain mean; or the member that validates best.",
    )
    variant: Variant = Field(
        "boldly",
        description="Which linear baseline: that of boldly, or (lfb) that of the published system as it was.",
    )
    width: int = Field(256, ge=1, description="Hidden width of mean_mlp.")
    window_frames: int = Field(50, ge=2, description="Longer trials are cut to this many frames.")
    shortest_crop: float = Field(
        1.0, gt=0, le=1, description="Training trials are cropped at random to no less than this share; 1: never."
    )
    freeze: list[Literal["embedder", "decoder", "unembedder"]] = Field(
        [],
        description="Parts of the network that are not trained (methods finetune, network); what is put on top "
        "of it for decoding (pooler and head) always is.",
    )
    layer_decay: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Learning rate of each layer as a share of that of the layer above it (method finetune); "
        "1: all layers have the same.",
    )
    allow_mismatch: list[ContractField] = Field(
        [], description="Fields in which the contracts of upstream model and shards may differ."
    )
    seeds: list[Seed] = Field(
        [1234],
        min_length=1,
        description="Repetitions with other seeds; an upstream experiment with `repeats` brings its own seeds.",
    )
    datasets: list[Name] | None = Field(None, description="Downstream datasets; default: all.")

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        given = (*STARTS, "members")
        if sum(getattr(self, kind) is not None for kind in given) != 1:
            raise ValueError(f"give exactly one of {', '.join(given)}")
        if self.members is not None and len(set(self.members)) < len(self.members):
            raise ValueError(f"members: an experiment stands twice in {', '.join(self.members)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: a seed stands there twice")
        if self.variant != "boldly" and self.baseline != "linear":
            raise ValueError("variant is for the linear baseline; a network has that of its upstream experiment")
        self.read_out_words()
        return self

    @property
    def kind(self) -> str:
        """What it starts from: pretrained (members too, which may be), untrained, scratch or baseline."""
        return next(kind for kind in STARTS if getattr(self, kind) is not None or self.members is not None)

    @property
    def upstream(self) -> list[str]:
        """Upstream experiment or model folder that the experiment needs, if any; members bring their own."""
        start = self.pretrained or self.untrained or self.scratch
        return [] if start is None else [start]

    @property
    def is_probe(self) -> bool:
        """Whether the decoder is a frozen encoder with a classifier."""
        if self.baseline is not None:
            return self.baseline in PROBE_BASELINES
        return self.untrained is not None or (self.pretrained is not None and self.method == "probe")

    @property
    def has_steps(self) -> bool:
        """Whether it is trained by gradient steps, rather than fitted in closed form or put together."""
        return self.members is None and (not self.is_probe or self.is_fine_tuned)

    @property
    def is_fine_tuned(self) -> bool:
        """Whether the decoder is a probe with a network that was trained from there on."""
        return self.pretrained is not None and self.method == "finetune"

    def read_out_words(self) -> tuple[tuple[ReadOut, ...], ...]:
        """Return the read-outs to choose from, each as the words that are used together."""
        parted = tuple(tuple(item.split("+")) for item in self.read_outs)
        known = get_args(ReadOut)
        if wrong := sorted({word for words in parted for word in words} - set(known)):
            hint = (
                "; attentive pooling: method network with freeze [embedder, decoder]"
                if "attentive" in wrong
                else ""
            )
            raise ValueError(f"read_outs: no read-out {', '.join(wrong)} (there are: {', '.join(known)}{hint})")
        return parted  # type: ignore[return-value]


STARTS = ("pretrained", "untrained", "scratch", "baseline")


class AdaptSection(Section):
    """All downstream experiments."""

    experiments: dict[ExperimentName, AdaptOptions] = Field({}, description="By name.")
    baselines: list[Baseline] = Field(
        list(get_args(Baseline)),
        description="Baselines that are added as experiments of their own name; without `experiments` beside a "
        "downstream dataset those that are fitted in seconds (all but linear and mean_mlp); []: none.",
    )
    controls: list[Literal["untrained", "scratch"]] = Field(
        ["untrained", "scratch"],
        description="Added to each experiment with one pretrained network, as `<name>_untrained` and "
        "`<name>_scratch`: the same network with random weights, and trained from scratch.",
    )
    shared: dict[str, Any] = Field(
        {},
        description="Options of all experiments that do not give others themselves: steps, batch_size, "
        "learning_rate, ...",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        """Add baselines and controls, and what experiments share."""
        if not isinstance(content, dict) or not isinstance(content.get("experiments") or {}, dict):
            return content
        given = {
            name: options.model_dump(exclude_unset=True) if isinstance(options, BaseModel) else options
            for name, options in (content.get("experiments") or {}).items()
        }
        content = {"baselines": cls.model_fields["baselines"].default if given else [], **content}
        shared = content.get("shared")
        # One that does not exist is reported where it is listed.
        known = [name for name in _words(content["baselines"]) if name in get_args(Baseline)]
        experiments: dict[str, Any] = {name: {"baseline": name} for name in known}
        controls = _words(content.get("controls", cls.model_fields["controls"].default))
        for name, options in given.items():
            experiments[name] = options
            start = options.get("pretrained") if isinstance(options, dict) else None
            # Linear pretraining has neither random weights nor any to train.
            for control in controls if isinstance(start, str) and start != COMPONENTS else ():
                own = {key: value for key, value in options.items() if key not in _OF_PRETRAINED}
                experiments.setdefault(f"{name}_{control}", {**own, control: start})
        complete = {
            name: {**shared, **options} if isinstance(options, dict) and isinstance(shared, dict) else options
            for name, options in experiments.items()
        }
        return {**content, "experiments": complete}


def _words(content: Any) -> list[str]:
    """Return the words of a list; what is wrong with it is reported where its field is checked."""
    return [word for word in content if isinstance(word, str)] if isinstance(content, list) else []


# What holds for a pretrained experiment and not for its controls.
_OF_PRETRAINED = ("pretrained", "method", "combine", "freeze", "layer_decay")
