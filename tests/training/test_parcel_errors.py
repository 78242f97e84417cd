"""Errors by parcel are what the error of a window is the mean of."""

from __future__ import annotations

import pytest
import torch

from boldly.models.network import window_l1
from boldly.models.parcel_errors import listening


def test_errors_of_parcels_are_what_the_error_of_a_window_is_made_of() -> None:
    generator = torch.Generator().manual_seed(0)
    said, wanted = (torch.randn(1, 6, 4, generator=generator) for _ in range(2))
    frames = torch.tensor([[True, True, False, True, False, True]])
    marked = torch.tensor([[False, True, False, False]])
    with listening() as heard:
        whole = window_l1(said, wanted, frames, marked)
    ((total, count),) = heard
    assert count.tolist() == [4, 0, 4, 4]  # frames that count, of parcels that do
    assert (total.sum() / count.sum()).item() == pytest.approx(whole.item(), rel=1e-6)
    assert total[0].item() == pytest.approx((said - wanted).abs()[0, frames[0], 0].sum().item(), rel=1e-6)


def test_nobody_listens_unless_asked() -> None:
    with listening() as heard:
        pass
    window_l1(
        torch.zeros(1, 2, 3), torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 3).bool()
    )
    assert heard == []
