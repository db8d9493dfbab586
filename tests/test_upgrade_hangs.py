# SPDX-License-Identifier: MIT
"""As tests/test_upgrade_faults.py: processes that hang, which takes as long as others wait for them."""

import pytest

from test_upgrade_faults import faults, injects, launch, new_processes_before_the_commit, old_shards_before_the_commit  # noqa: F401 (fixtures)
from upgrade import reaper  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.tgg_only, pytest.mark.usefixtures("reaper"), pytest.mark.timeout(300)]

if injects():

    def test_new_processes_that_hang_before_the_commit(faults, launch):  # noqa: F811
        new_processes_before_the_commit(faults, launch, "hang")

    def test_old_shards_that_hang_before_the_commit(faults, launch):  # noqa: F811
        old_shards_before_the_commit(faults, launch, "hang")
