"""`boldly site` on a real Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from boldly.records import InputError
from boldly.stages import site
from tests.cluster.local_slurm import LocalSlurm
from tests.workflow.conftest import CHECKOUT

pytestmark = pytest.mark.cluster


def test_names_and_the_environment_are_tried_on_nodes(cluster: LocalSlurm, tmp_path: Path) -> None:
    template, output = CHECKOUT / site.TEMPLATE, tmp_path / "site/config.yaml"
    with pytest.raises(InputError) as caught:
        site.run(site=site.Site("default", "cpus", "gpu"), template=template, output=output, check=True, wait_s=60)
    assert "cpus: no such partition" in str(caught.value)
    # The nodes' GPUs are emulated: the test job runs, and torch sees none.
    with pytest.raises(InputError) as caught:
        site.run(site=site.Site("default", "cpu", "gpu"), template=template, output=output, check=True, wait_s=60)
    assert [problem.message for problem in caught.value.problems] == ["torch sees no GPU there"]
    assert not output.exists()
