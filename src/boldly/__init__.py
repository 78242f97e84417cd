"""boldly: from fMRIPrep derivatives to trained decoders of mental states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boldly.decoding.decoder import Decoder
    from boldly.models.pretrained import Network

__all__ = ["Decoder", "Network", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for: `import boldly` alone stays quick."""
    if name == "Decoder":
        from boldly.decoding.decoder import Decoder

        return Decoder
    if name == "Network":
        from boldly.models.pretrained import Network

        return Network
    raise AttributeError(f"module 'boldly' has no attribute '{name}'")
