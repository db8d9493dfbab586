# SPDX-License-Identifier: MIT
"""tgg ctl inject: errors on purpose. A build without them says so; those with them (the sanitized one of make test) show
what the errors are for."""

import pytest

from proc import run_tgg, wait_for

pytestmark = pytest.mark.tgg_only


@pytest.fixture
def node(start):
    site = start(shards=2)
    site.worker_link()

    def inject(shard, name):
        done = run_tgg("ctl", "-c", site.gateway.config_path, "inject", shard, name)
        injects = "injects no errors" not in done.stderr
        assert done.returncode == (0 if injects else 1), done
        return injects

    return site, inject


def longest_turn(site):
    return max(shard["turn_longest_ns"] for shard in site.gateway.status()["shards"])


def test_a_slow_turn_is_seen(node):
    site, inject = node
    if inject(1, "slow_turn"):
        wait_for(lambda: longest_turn(site) > 150e6, what="a turn of 200 ms")


def test_no_memory_for_clients_refuses_them_and_is_over(node):
    site, inject = node
    if not inject(0, "no_memory") or not inject(1, "no_memory"):
        return
    before = site.counter("client_refused")
    for _ in range(40):
        client = site.connect("text")
        try:
            client.send_message(b"x")
        except OSError:
            pass
    wait_for(lambda: site.counter("client_refused") - before == 20, what="ten refusals in each shard")


def test_an_unknown_error_is_told(node):
    site, inject = node
    done = run_tgg("ctl", "-c", site.gateway.config_path, "inject", 0, "nonsense")
    assert done.returncode != 0 and done.stderr
