"""boldly: from fMRIPrep derivatives to trained decoders of mental states."""

__version__ = "0.1.0"
