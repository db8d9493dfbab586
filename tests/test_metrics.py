# SPDX-License-Identifier: MIT
"""/metrics of a running gateway: promtool, a real Prometheus that scrapes it each second, alerts, the dashboard."""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from gwproto import PATIENCE
from node import Site
from proc import ROOT, Gateway, Process, can_connect, free_port, wait_for
from test_workers import push_until_blocked

pytestmark = [pytest.mark.tgg_only, pytest.mark.shards(1, 3)]

TOKEN = "a-token-of-the-tests"
RULES = os.path.join(ROOT, "etc", "prometheus", "tgg_alerts.yml")
RULES_TESTS = [os.path.join(ROOT, "etc", "prometheus", name) for name in ("tgg_alerts_test.yml", "tgg_alerts_day_test.yml")]
DASHBOARD = os.path.join(ROOT, "etc", "grafana", "tgg_dashboard.json")
METRICS_MD = os.path.join(ROOT, "docs", "METRICS.md")


# ---- the gateway


@pytest.fixture
def site(tmp_path, shards):
    """At a gateway with an admin port; site.metrics() is what /metrics answers."""
    gateway = Gateway(tmp_path, shards=shards, start=False, gateway={"send_to_worker_buffer_size": 65536})
    port = free_port()
    gateway.sections["admin"] = {"address": "127.0.0.1", "port": port, "token": TOKEN}
    gateway.write_config()
    gateway.start()
    site_ = Site(gateway)
    site_.admin = "127.0.0.1:%d" % port
    site_.metrics = lambda: get("http://%s/metrics" % site_.admin, TOKEN)
    yield site_
    try:
        site_.close()
    finally:
        gateway.stop()


def get(url, token=None):
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token} if token else {})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read().decode()


SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)$')


def samples(text):
    """{(name, labels): value}; every line is of a known form, and no sample stands there twice."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# HELP ") or line.startswith("# TYPE "):
            continue
        match = SAMPLE.match(line)
        assert match, line
        key = (match.group(1), match.group(2) or "")
        assert key not in found, line
        found[key] = float(match.group(3))
    return found


def families(text):
    return dict(line.split(" ")[2:4] for line in text.splitlines() if line.startswith("# TYPE "))


def names_of(text):
    """Every name that a query may use."""
    names = set()
    for family, kind in families(text).items():
        names |= {family + end for end in ("_bucket", "_sum", "_count")} if kind == "histogram" else {family}
    return names


def used_names(expression):
    return set(re.findall(r"\btgg_[a-z0-9_]+", expression))


def dashboard_queries():
    with open(DASHBOARD) as f:
        dashboard = json.load(f)
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def rule_queries():
    """Of each alert, without a YAML library: promtool knows the form, here only names matter."""
    with open(RULES) as f:
        text = "".join(line for line in f if not line.lstrip().startswith(("summary:", "description:", "- name:", "#")))
    return text.split("- alert:")[1:]


def promtool(*args, text=None):
    done = subprocess.run(["promtool", *args], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr.strip() == "", done.stdout + done.stderr
    return done.stdout


# ---- the answer


def test_promtool_has_nothing_to_say_about_a_real_answer(site):
    site.client("text")
    promtool("check", "metrics", text=site.metrics())


def test_the_figures_are_those_of_status(site):
    for _ in range(5):
        site.client("text")
    found = samples(site.metrics())
    status = site.gateway.status()
    for i, shard in enumerate(status["shards"]):
        for counter, family in [("client_accepted", "tgg_client_accepted_total"), ("event_connect", "tgg_event_connect_total"),
                                ("clients", "tgg_clients"), ("workers", "tgg_workers")]:
            assert found[(family, 'shard="%d"' % i)] == shard["counters"][counter], family
        assert found[("tgg_shard_up", 'shard="%d"' % i)] == 1
        assert found[("tgg_shard_answered", 'shard="%d"' % i)] == 1
        assert found[("tgg_clients_max", 'shard="%d"' % i)] == status["max_clients_per_shard"]
        assert found[("tgg_process_resident_memory_bytes", 'process="shard",shard="%d"' % i)] > 100_000
    assert sum(value for (name, _), value in found.items() if name == "tgg_clients") == 5
    assert sum(value for (name, _), value in found.items() if name == "tgg_worker_clients") == 5
    assert found[("tgg_process_up", 'process="admin"')] == 1
    assert found[("tgg_ready", "")] == 1
    # The announcer, which starts last, says what registers there are.
    wait_for(lambda: [value for (name, _), value in samples(site.metrics()).items() if name == "tgg_register_up"] == [0])


def test_traffic_shows_in_counters_histograms_and_workers(site):
    client = site.client("text")
    before = samples(site.metrics())
    for _ in range(10):
        client.send_message(b"x" * 100)
        site.worker.next()
    site.worker.send_to_one(client.id, b"y" * 50)
    assert client.read_message() == b"y" * 50
    after = samples(site.metrics())

    def grown(name, *parts):
        pick = lambda found: sum(v for (n, labels), v in found.items() if n == name and all(p in labels for p in parts))
        return pick(after) - pick(before)

    assert grown("tgg_client_messages_in_total") == 10
    assert grown("tgg_message_in_bytes_count") == 10 and grown("tgg_message_in_bytes_sum") == 1000
    assert grown("tgg_message_in_bytes_bucket", 'le="63"') == 0 and grown("tgg_message_in_bytes_bucket", 'le="127"') == 10
    assert grown("tgg_worker_messages_total", 'direction="out"') == 10
    assert grown("tgg_worker_messages_total", 'direction="in"') == 1
    assert grown("tgg_worker_bytes_total", 'direction="out"') > 1000
    assert grown("tgg_turn_seconds_count") > 0


def test_reasons_of_closes_and_refusals_are_labels(site):
    client = site.client("text")
    site.worker.destroy(client.id)
    client.expect_end()
    site.wait_gauge("clients", 0)
    found = samples(site.metrics())
    assert sum(v for (name, labels), v in found.items() if name == "tgg_client_closed_total" and 'reason="destroyed"' in labels) == 1
    assert ("tgg_refused_total", 'shard="0",check="per_address"') in found


@pytest.mark.shards(1)
def test_without_the_token_there_are_none(site):
    for token in (None, "wrong"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get("http://%s/metrics" % site.admin, token)
        assert refused.value.code == 401


@pytest.mark.shards(1)
def test_the_key_of_a_worker_is_escaped(site):
    site.worker_link('a"b\\c\nd')
    keys = [labels for (name, labels) in samples(site.metrics()) if name == "tgg_worker_clients"]
    assert any('a\\"b\\\\c\\nd"' in labels for labels in keys), keys


@pytest.mark.shards(1)
def test_workers_that_fill_more_than_one_answer_of_a_shard_are_all_there(site):
    for i in range(450):
        site.worker_link("w%d" % i, sync=False)
    site.wait_gauge("workers", 450)
    text = site.metrics()
    keys = {labels for (name, labels) in samples(text) if name == "tgg_worker_clients"}
    assert len(keys) == 450
    promtool("check", "metrics", text=text)


# ---- names in files


@pytest.mark.shards(1)
def test_every_name_in_dashboard_and_alerts_exists(site):
    site.client("text")
    names = names_of(site.metrics())
    queries = dashboard_queries() + rule_queries()
    assert len(queries) > 80
    for query in queries:
        used = used_names(query)
        assert used <= names, "%s: not in /metrics: %s" % (query, used - names)


@pytest.mark.shards(1)
def test_the_documentation_has_every_family_and_no_other(site):
    with open(METRICS_MD) as f:
        text = f.read()
    documented = set(re.findall(r"^(?:\| |### )`(tgg_[a-z0-9_]+)`", text, re.M))
    assert documented == set(families(site.metrics()))
    queries = re.findall(r"^\| [^|]+ \| (.*`.*) \|$", text.split("## Queries")[1].split("## Node")[0], re.M)
    assert len(queries) > 10
    for query in queries:
        assert used_names(query) <= names_of(site.metrics()), query


@pytest.mark.shards(1)
def test_alert_rules_are_good_and_each_is_tested():
    promtool("check", "rules", RULES)
    promtool("test", "rules", *RULES_TESTS)
    with open(RULES) as f:
        alerts = set(re.findall(r"- alert: (\w+)", f.read()))
    tested = set()
    for path in RULES_TESTS:
        with open(path) as f:
            tested |= set(re.findall(r'alertname="(\w+)"', f.read()))
    assert alerts == tested and len(alerts) > 25


@pytest.mark.shards(1)
def test_the_dashboard_has_what_grafana_wants():
    with open(DASHBOARD) as f:
        dashboard = json.load(f)
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert variables == ["datasource", "job", "instance"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    places = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not cells & places, "%s lies on another one" % panel["title"]
        places |= cells
        if panel["type"] == "row":
            continue
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'job="$job",instance=~"$instance"' in target["expr"], target["expr"]


# ---- a real Prometheus


class Prometheus:
    """Scrapes one gateway each second."""

    def __init__(self, folder, target, rules):
        self.address = ("127.0.0.1", free_port())
        config = os.path.join(str(folder), "prometheus.yml")
        with open(os.path.join(str(folder), "rules.yml"), "w") as f:
            f.write(rules)
        with open(config, "w") as f:
            f.write(
                "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
                "rule_files: [rules.yml]\n"
                "scrape_configs:\n"
                "  - job_name: tgg\n"
                "    authorization: {credentials: %s}\n"
                "    static_configs: [{targets: ['%s']}]\n" % (TOKEN, target)
            )
        argv = ["prometheus", "--config.file=" + config, "--storage.tsdb.path=" + os.path.join(str(folder), "data"),
                "--web.listen-address=%s:%d" % self.address, "--log.level=warn"]
        self.process = Process(argv, folder, "prometheus")
        try:
            wait_for(lambda: self.process.check() or can_connect(self.address), what="Prometheus to listen")
        except BaseException:
            self.process.kill_all()
            raise

    def ask(self, path, **parameters):
        url = "http://%s:%d/api/v1/%s?%s" % (*self.address, path, urllib.parse.urlencode(parameters))
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it still starts
                return {"result": [], "alerts": []}
            raise AssertionError("%s: %s" % (parameters, error.read().decode())) from None

    def query(self, query):
        """[(labels, value)]"""
        result = self.ask("query", query=query)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def value(self, query):
        found = self.query(query)
        return found[0][1] if len(found) == 1 else None

    def firing(self):
        return {alert["labels"]["alertname"]: alert["labels"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def stop(self):
        self.process.expected_end = True
        self.process.kill_all()


def quick_rules():
    """The alerts as they are, but without their waits."""
    with open(RULES) as f:
        return re.sub(r"^( *for:) \w+$", r"\1 1s", f.read(), flags=re.M)


@pytest.fixture
def prometheus(site, tmp_path):
    folder = tmp_path / "prometheus"
    folder.mkdir()
    prometheus_ = Prometheus(folder, site.admin, quick_rules())
    yield prometheus_
    prometheus_.stop()


def test_prometheus_scrapes_it_and_its_answers_are_right(site, prometheus):
    for _ in range(7):
        site.client("text")
    wait_for(lambda: prometheus.value('up{job="tgg"}') == 1, what="up")
    wait_for(lambda: prometheus.value("sum(tgg_clients)") == 7, what="the clients in Prometheus")
    assert prometheus.value("count(tgg_clients)") == site.shards
    assert prometheus.value("sum(tgg_worker_clients)") == 7
    assert prometheus.value("sum(tgg_client_accepted_total)") == 7
    wait_for(lambda: (prometheus.value("tgg_admin_scrapes_total") or 0) >= 3, what="some scrapes")
    assert prometheus.value('scrape_duration_seconds{job="tgg"}') < 0.5
    for query in dashboard_queries():
        query = query.replace("$job", "tgg").replace("$instance", ".*").replace("$__rate_interval", "10s")
        prometheus.query(query)  # no error
    rules = prometheus.ask("rules")["groups"]
    unhealthy = [rule["name"] for group in rules for rule in group["rules"] if rule["health"] == "err"]
    assert unhealthy == []


def test_the_alert_for_a_stuck_worker_fires_and_ends(site, prometheus):
    stuck = site.worker_link("stuck", rcvbuf=4096)
    client = site.client("text", worker=stuck)
    wait_for(lambda: prometheus.value('up{job="tgg"}') == 1, what="up")
    assert "TggWorkerStuck" not in prometheus.firing()
    body = b"x" * 8000
    sent = push_until_blocked(client, body)
    labels = wait_for(lambda: prometheus.firing().get("TggWorkerStuck"), timeout=10 + PATIENCE, what="the alert")
    assert labels["worker"].endswith(":stuck") and labels["severity"] == "critical"
    assert labels["shard"] in [str(i) for i in range(site.shards)]
    assert prometheus.value('tgg_worker_health{worker="%s",state="stuck"}' % labels["worker"]) == 1
    assert prometheus.value('tgg_worker_queue_age_seconds{worker="%s"}' % labels["worker"]) > 9
    for _ in range(sent):
        stuck.next()
    wait_for(lambda: "TggWorkerStuck" not in prometheus.firing(), what="the alert to end")


def test_the_alert_for_no_worker_fires_and_ends(site, prometheus):
    wait_for(lambda: prometheus.firing().get("TggNoWorker"), what="the alert")
    wait_for(lambda: prometheus.firing().get("TggNotReady"), what="not ready")
    site.worker_link()
    wait_for(lambda: not {"TggNoWorker", "TggNotReady"} & set(prometheus.firing()), what="the alerts to end")


def test_a_shard_that_is_killed_shows(site, prometheus):
    site.worker_link()
    wait_for(lambda: prometheus.value("sum(tgg_process_restarts_total)") == 0, what="a first scrape")
    os.kill(site.gateway.shard_pid(0), 9)
    wait_for(lambda: prometheus.value('tgg_process_restarts_total{process="shard",shard="0"}') == 1, what="the death")
    wait_for(lambda: prometheus.firing().get("TggProcessRestarted"), what="the alert")
    wait_for(lambda: prometheus.value('tgg_shard_up{shard="0"}') == 1, what="its successor")


@pytest.mark.shards(1)
def test_a_scrape_each_second_costs_little(site, prometheus):
    """The admin process answers; a shard only tells of its workers."""
    for i in range(20):
        site.worker_link("w%d" % i)
    wait_for(lambda: (prometheus.value("tgg_admin_scrapes_total") or 0) >= 2, what="scrapes")
    began, cpu = time.monotonic(), prometheus.value('tgg_process_cpu_seconds_total{process="shard",shard="0"}')
    time.sleep(5)
    used = prometheus.value('tgg_process_cpu_seconds_total{process="shard",shard="0"}') - cpu
    assert used / (time.monotonic() - began) < 0.05
