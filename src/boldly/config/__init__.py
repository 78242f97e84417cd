"""The config: one model per section, every field typed and described.

The JSON schema, the option tables of config/README.md and the checks of every stage come from these models.
"""

from boldly.config.adaptation import (
    PROBE_BASELINES,
    STARTS,
    AdaptOptions,
    AdaptSection,
    Baseline,
    ClassifierName,
    LayerChoice,
    ProbeBaseline,
    ReadOut,
)
from boldly.config.advice import FEW_UNITS, advise
from boldly.config.atlases import ATLASES, AtlasChoice, AtlasOptions
from boldly.config.datasets import (
    HCP_SPACE,
    DatasetOptions,
    DownstreamSplitOptions,
    RestOptions,
    TaskOptions,
    UpstreamSplitOptions,
)
from boldly.config.decoding import DecodeOptions
from boldly.config.explanation import ExplainMethod, ExplainOptions, RivalMethod
from boldly.config.preparation import (
    BatchOptions,
    ExportOptions,
    IndexOptions,
    PrepareOptions,
    ShardOptions,
    SplitOptions,
)
from boldly.config.pretraining import (
    COMPONENTS,
    Framework,
    GridOptions,
    OptimiserOptions,
    PretrainOptions,
    PretrainSection,
    Variant,
    repeat_name,
)
from boldly.config.reading import apply_preset, load_config, read_config, read_yaml, resolve
from boldly.config.sections import (
    DECODE_REVISIONS,
    REVISIONS,
    STAGES,
    ExperimentName,
    Fraction,
    Name,
    S,
    Section,
    parse,
)
from boldly.config.signals import (
    ContractField,
    ExclusionOptions,
    ParcellateOptions,
    PreprocessOptions,
    SignalExclusionOptions,
    with_one_high_pass,
)
from boldly.config.study import Config, DeviceOptions, EvaluateOptions, FiguresOptions

__all__ = [
    "ATLASES",
    "COMPONENTS",
    "DECODE_REVISIONS",
    "FEW_UNITS",
    "HCP_SPACE",
    "PROBE_BASELINES",
    "REVISIONS",
    "STAGES",
    "STARTS",
    "AdaptOptions",
    "AdaptSection",
    "AtlasChoice",
    "AtlasOptions",
    "Baseline",
    "BatchOptions",
    "ClassifierName",
    "Config",
    "ContractField",
    "DatasetOptions",
    "DecodeOptions",
    "DeviceOptions",
    "DownstreamSplitOptions",
    "EvaluateOptions",
    "ExclusionOptions",
    "ExperimentName",
    "ExplainMethod",
    "ExplainOptions",
    "ExportOptions",
    "FiguresOptions",
    "Fraction",
    "Framework",
    "GridOptions",
    "IndexOptions",
    "LayerChoice",
    "Name",
    "OptimiserOptions",
    "ParcellateOptions",
    "PrepareOptions",
    "PreprocessOptions",
    "PretrainOptions",
    "PretrainSection",
    "ProbeBaseline",
    "ReadOut",
    "RestOptions",
    "RivalMethod",
    "S",
    "Section",
    "ShardOptions",
    "SignalExclusionOptions",
    "SplitOptions",
    "TaskOptions",
    "UpstreamSplitOptions",
    "Variant",
    "advise",
    "apply_preset",
    "load_config",
    "parse",
    "read_config",
    "read_yaml",
    "repeat_name",
    "resolve",
    "with_one_high_pass",
]
