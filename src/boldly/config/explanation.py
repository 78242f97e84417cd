"""Section explain: which decoders are explained, by what methods, and what is drawn."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from boldly.config.sections import ExperimentName, Name, Section, Seed

ExplainMethod = Literal["integrated_gradients", "occlusion", "patterns", "weights"]

RivalMethod = Literal["mean_difference"]


class ExplainOptions(Section):
    """Which parcels made decoders say so: maps of each state, how faithful they are, and what they agree with."""

    experiments: list[ExperimentName] | None = Field(
        None,
        description="Downstream experiments to explain; []: none. Default: the first that probes a pretrained "
        "network, else the first baseline that is a probe.",
    )
    datasets: list[Name] | None = Field(None, description="Downstream datasets; default: all.")
    methods: list[ExplainMethod] = Field(
        ["integrated_gradients", "occlusion", "patterns", "weights"],
        min_length=1,
        description="integrated_gradients and occlusion: evidence that each parcel gave for the state; patterns: "
        "how signals change with this evidence (Haufe et al. 2014); weights: for linear decoders only. The "
        "difference of mean signals, which needs no decoder, is always added.",
    )
    n: int | None = Field(
        None, ge=1, description="Number of labelled units of the decoders; default: the largest."
    )
    fits: int = Field(
        3, ge=1, description="Largest number of decoders (draws and seeds) of an experiment, evenly chosen."
    )
    trials_per_state: int = Field(
        16, ge=1, description="Largest number of test trials of each state and decoder, spread over the units."
    )
    steps: int = Field(16, ge=2, description="Points on the path of integrated gradients.")
    reference: Literal["auto", "zero", "trials"] = Field(
        "auto",
        description="Where the path of integrated gradients starts: at zero, the mean of each parcel, or at "
        "`references` other trials of other states. auto: at zero, but at trials for decoders whose read-outs "
        "(tangent and correlation) have no value at zero.",
    )
    references: int = Field(
        4, ge=1, description="Number of trials that each path starts from (`reference: trials`)."
    )
    occlusions: int = Field(
        20000,
        ge=1,
        description="Largest number of trials times parcels for which occlusion asks a decoder; with many "
        "parcels fewer trials of each state are occluded, at least one.",
    )
    removed: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.05, 0.1, 0.2, 0.35, 0.5, 0.75],
        description="Shares of the parcels that are removed for the faithfulness curves, beside none and all.",
    )
    random_orders: int = Field(5, ge=2, description="Random orders that faithfulness curves are compared with.")
    glm: bool = Field(
        True,
        description="Compare maps with a general linear model of the events, on the parcels' signals (not for "
        "ready-made shards).",
    )
    images: list[ExplainMethod | RivalMethod] | None = Field(
        None, description="Methods whose maps are written as NIfTI images; default: all. []: none."
    )
    pictures: list[ExplainMethod | RivalMethod] = Field(
        ["integrated_gradients", "patterns"],
        description="Methods whose maps are drawn: glass brain and slices of each state.",
    )
    views: list[ExplainMethod | RivalMethod] = Field(
        ["integrated_gradients"], description="Methods whose maps get an interactive page of all states."
    )
    seed: Seed = Field(1234, description="Seed of the choice of trials and of the random orders.")

    @model_validator(mode="after")
    def _known_maps(self) -> Self:
        known = {*self.methods, "mean_difference"}
        for field in ("images", "pictures", "views"):
            # The defaults name methods that a shorter list of methods may lack.
            if field in self.model_fields_set and (absent := sorted(set(getattr(self, field) or ()) - known)):
                raise ValueError(f"{field}: {', '.join(absent)} is not among the methods")
        return self

    def drawn(self, field: Literal["images", "pictures", "views"]) -> set[str]:
        """Return the methods that are written as images, drawn, or get a page."""
        known = {*self.methods, "mean_difference"}
        chosen = getattr(self, field)
        return known if chosen is None else known & set(chosen)
