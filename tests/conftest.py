# SPDX-License-Identifier: MIT
"""Fixtures of the scenarios.

With TGG_ORACLE_GATEWAY set (see node.py) the tests at the shared gateway run against the gateway that is named there,
those marked tgg_only and all others are left out. Without it everything runs against tgg, and nothing is skipped.

How many shards the gateways have: 1, or TGG_TEST_SHARDS. Tests marked `shards(1, 3)` run with each of these numbers; with
TGG_TEST_SHARDS set, with that one only, if it is among them. `shards(1)` pins a test to one shard.
"""

import os

import pytest

from node import Site, oracle
from proc import SHARDS


def pytest_generate_tests(metafunc):
    if "shards" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("shards")
    numbers = (1,) if oracle() else marker.args if marker else (SHARDS,)
    if "TGG_TEST_SHARDS" in os.environ and SHARDS in numbers:
        numbers = (SHARDS,)
    if numbers != (SHARDS,):
        names = ["1shard" if n == 1 else "%dshards" % n for n in numbers]
        metafunc.parametrize("shards", numbers, ids=names, indirect=True)


def pytest_collection_modifyitems(items):
    if not oracle():
        return
    for item in items:
        if item.get_closest_marker("tgg_only") or "shared" not in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason="not for the oracle"))


def stop_all(gateways):
    """Every one of them, whatever is wrong with the others; then the first that was wrong."""
    failures = []
    for gateway in gateways:
        try:
            gateway.stop()
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]


@pytest.fixture(scope="session")
def gateway_factory(tmp_path_factory):
    """start(**config) -> a running tgg gateway (proc.py); all are stopped at the end of the session at the latest."""
    from proc import TGG, Gateway

    if not os.path.exists(TGG):
        pytest.exit("there is no %s: build first, or set TGG_BUILD" % TGG, returncode=3)
    running = []

    def start(**config):
        gateway = Gateway(tmp_path_factory.mktemp("gateway"), **config)
        running.append(gateway)
        return gateway

    yield start
    stop_all(running)


class Shared:
    """One gateway with the defaults for every test that needs no configuration of its own; a fresh one takes its
    place when a test left it in a state that would spoil the next."""

    def __init__(self, make, **how):
        self.make = make
        self.how = how
        self.gateway = None

    def site(self, protocol="websocket"):
        if self.gateway is None:
            self.gateway = self.make(**self.how)
        return Site(self.gateway, protocol).with_worker()

    def close(self, site_):
        try:
            site_.close()
            site_.take_what_waits()
        except BaseException:
            self.gateway = None
            raise


@pytest.fixture
def shards(request):
    """Of the gateways of this test that do not say it themselves."""
    return getattr(request, "param", SHARDS)


@pytest.fixture(scope="session")
def shared_of_size():
    """A shared gateway for each number of shards that a test asked for."""
    return {}


@pytest.fixture
def shared(request, shards, shared_of_size):
    if shards not in shared_of_size:
        made = Shared(oracle) if oracle() else Shared(request.getfixturevalue("gateway_factory"), shards=shards)
        shared_of_size[shards] = made
    return shared_of_size[shards]


@pytest.fixture
def site(shared):
    """Links and clients at the shared gateway, closed and counted at the end of the test. It has a worker."""
    site_ = shared.site()
    yield site_
    shared.close(site_)


@pytest.fixture
def start(gateway_factory, shards):
    """start(gateway={...}, listen={"websocket": {...}}, register={...}, log={...}, shards=2) -> a Site at a gateway of its
    own."""
    sites = []

    def start_(**config):
        site_ = Site(gateway_factory(**{"shards": shards, **config}))
        sites.append(site_)
        return site_

    yield start_
    try:
        for site_ in sites:
            site_.close()
    finally:
        stop_all(site_.gateway for site_ in sites)
