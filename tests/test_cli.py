# SPDX-License-Identifier: MIT
"""The command line: exit statuses, what is said about a wrong configuration, ports in use, status, logs, and the
supervisor's watch over its shard."""

import json
import os
import re
import signal
import socket
import time

import pytest

from proc import Gateway, Process, Register, TGG, can_connect, config_text, free_port, run_tgg, wait_for

pytestmark = pytest.mark.tgg_only

OK, RUNTIME, USAGE, CONFIG = 0, 1, 2, 78


def write(tmp_path, text):
    path = tmp_path / "conf.ini"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def good_sections(tmp_path):
    return {
        "gateway": {"start_port": free_port(), "runtime_dir": tmp_path / "run"},
        "listen web": {"address": "127.0.0.1", "port": free_port(), "protocol": "websocket"},
    }


# -- usage


def test_help_and_version_go_to_stdout():
    done = run_tgg("--help")
    assert done.returncode == OK and "gateway" in done.stdout and done.stderr == ""
    done = run_tgg("--version")
    assert done.returncode == OK and re.fullmatch(r"tgg \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("command", ["gateway", "register", "run", "status"])
def test_each_command_has_its_help(command):
    done = run_tgg(command, "--help")
    assert done.returncode == OK and done.stdout.startswith("usage: tgg " + command)


@pytest.mark.parametrize(
    "args", [[], ["nonsense"], ["gateway", "--nonsense"], ["gateway", "surplus"], ["gateway", "-c"], ["run", "--http", "0"],
             ["run", "--http", "80x"], ["status", "-t"], ["register", "--json"]]
)
def test_wrong_usage_is_2_and_says_so_on_stderr(args):
    done = run_tgg(*args)
    assert done.returncode == USAGE and "usage:" in done.stderr and done.stdout == ""


# -- the configuration


def test_a_missing_file_is_named_and_what_to_do(tmp_path):
    done = run_tgg("gateway", "-c", tmp_path / "none.ini")
    assert done.returncode == CONFIG
    assert str(tmp_path / "none.ini") in done.stderr and "No such file" in done.stderr and "-c FILE" in done.stderr


@pytest.mark.parametrize(
    "line, said",
    [
        ("ping_interval = fast", ':3: [gateway] ping_interval: "fast" is not a number; expected 0 to 86400 s'),
        ("ping_interval = 86401", "expected 0 to 86400 s"),
        ("ping_intervall = 5", ":3: [gateway] ping_intervall: unknown key; did you mean ping_interval?"),
        ("pingInterval = 5", "did you mean ping_interval?"),
        ("router = fastest", "one of least_connections, random, round_robin, client_hash"),
        ("lan_ip = localhost", "expected an IPv4 address"),
        ("register_address = 127.0.0.1", "expected host:port"),
        ("start_port = 3000", "[gateway] start_port: set twice, first at line 2"),
        ("shards = 65", ':3: [gateway] shards: "65" is neither a number nor auto; expected 1 to 64, or auto'),
        ("cpus = 0..3", ':3: [gateway] cpus: "0..3" is not a list of CPUs; expected auto, none, or'),
        ("edge_shards = 1", ":3: [gateway] edge_shards: \"1\" names a shard that is not there; expected numbers from 0 to 0"),
        ("link_shards = 3-1", ':3: [gateway] link_shards: "3-1" is not a list of shards; expected all, or'),
        ("ring_size = 100000", ":3: [gateway] ring_size: 100000 is not a power of two"),
        ("just words", ":3: [gateway] the line that starts with"),
        ("[gatewey]", ":3: unknown section"),
    ],
)
def test_what_is_wrong_is_told_with_line_key_and_what_was_expected(tmp_path, line, said):
    path = write(tmp_path, "[gateway]\nstart_port = 2900\n%s\n[listen a]\nport = 8000\nprotocol = text\n" % line)
    done = run_tgg("gateway", "-c", path)
    assert done.returncode == CONFIG and said in done.stderr, done.stderr
    assert done.stderr.startswith(str(path) + ":")


def test_all_problems_of_a_file_are_told_at_once(tmp_path):
    path = write(tmp_path, "[gateway]\nping_interval = x\n[nothing]\na = 1\n[listen a]\nport = 0\nprotocol = http\n")
    done = run_tgg("gateway", "-t", "-c", path)
    assert done.returncode == CONFIG
    assert [int(l.split(":")[1]) for l in done.stderr.splitlines()] == [2, 3, 6, 7]


def test_no_listener_is_an_error_of_the_gateway_only(tmp_path):
    path = write(tmp_path, "[gateway]\n")
    done = run_tgg("gateway", "-t", "-c", path)
    assert done.returncode == CONFIG and "no listener" in done.stderr
    assert run_tgg("register", "-t", "-c", path).returncode == OK


def test_t_prints_values_that_can_be_read_again_and_no_secret(tmp_path):
    sections = good_sections(tmp_path)
    sections["gateway"].update(secret_key="very;secret", send_to_client_buffer_size="64k", ping_interval="2m")
    done = run_tgg("gateway", "-t", "-c", write(tmp_path, config_text(sections)))
    assert done.returncode == OK
    assert "# secret_key = (set)" in done.stdout and "very" not in done.stdout + done.stderr
    assert "send_to_client_buffer_size = 65536\n" in done.stdout and "ping_interval = 120\n" in done.stdout
    again = run_tgg("gateway", "-t", "-c", write(tmp_path, done.stdout))
    assert again.returncode == OK

    def values(text):
        return {line for line in text.splitlines() if "=" in line and not line.startswith("#")}

    assert values(again.stdout) == values(done.stdout) and len(values(done.stdout)) > 20


def test_the_installed_example_is_good():
    example = os.path.join(os.path.dirname(__file__), "..", "etc", "tgg_conf.ini")
    done = run_tgg("gateway", "-t", "-c", example)
    assert done.returncode == OK, done.stderr


# -- ports


def listening(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port))
    s.listen()
    return s


@pytest.mark.parametrize("section, key", [("listen web", "port"), ("gateway", "start_port")])
def test_a_port_in_use_is_told_with_its_line_and_nothing_is_started(tmp_path, section, key):
    sections = good_sections(tmp_path)
    path = write(tmp_path, config_text(sections))
    line = next(i for i, l in enumerate(path.read_text().splitlines(), 1) if l.startswith(key + " "))
    with listening(sections[section][key]):
        done = run_tgg("gateway", "-c", path)
    assert done.returncode == RUNTIME
    assert "%s:%d: [%s] %s:" % (path, line, section, key) in done.stderr and "in use" in done.stderr
    assert not (tmp_path / "run").exists()
    for other in (sections["gateway"]["start_port"], sections["listen web"]["port"]):
        assert not can_connect(("127.0.0.1", other))


@pytest.mark.parametrize("n, others", [(1, 3), (3, 3), (3, 1)])
def test_a_second_gateway_does_not_share_a_port_silently(tmp_path, n, others):
    """Several shards share their port among each other, with nobody else: not even with shards of this user."""
    with Gateway(tmp_path, gateway={"shards": n}, shards=n) as gateway:
        sections = good_sections(tmp_path)
        sections["gateway"].update(shards=others, runtime_dir=tmp_path / "other")
        sections["listen web"]["port"] = gateway.ports["text"]
        done = run_tgg("gateway", "-c", write(tmp_path, config_text(sections)))
        assert done.returncode == RUNTIME and "[listen web] port:" in done.stderr and "in use" in done.stderr
        assert gateway.status()["state"] == "running"


def test_every_port_in_use_is_told_in_one_go(tmp_path):
    sections = good_sections(tmp_path)
    with listening(sections["gateway"]["start_port"]), listening(sections["listen web"]["port"]):
        done = run_tgg("gateway", "-c", write(tmp_path, config_text(sections)))
    assert done.returncode == RUNTIME and done.stderr.count("in use") == 2


def test_an_address_of_another_machine_blames_the_address(tmp_path):
    sections = good_sections(tmp_path)
    sections["listen web"]["address"] = "192.0.2.1"
    done = run_tgg("gateway", "-c", write(tmp_path, config_text(sections)))
    assert done.returncode == RUNTIME and "[listen web] address:" in done.stderr and "not an address of this machine" in done.stderr


def test_the_registers_port_in_use(tmp_path):
    port = free_port()
    path = write(tmp_path, "[register]\nport = %d\n" % port)
    with listening(port):
        done = run_tgg("register", "-c", path)
    assert done.returncode == RUNTIME and "%s:2: [register] port:" % path in done.stderr


def test_a_second_gateway_with_the_same_runtime_dir_is_refused(tmp_path):
    with Gateway(tmp_path) as gateway:
        sections = good_sections(tmp_path)
        sections["gateway"]["runtime_dir"] = gateway.runtime_dir
        done = run_tgg("gateway", "-c", write(tmp_path, config_text(sections)))
        assert done.returncode == RUNTIME and "runtime_dir" in done.stderr and "in use by another gateway" in done.stderr
        assert gateway.status()["gateway_running"]


# -- status


def test_status_without_a_gateway(tmp_path):
    path = write(tmp_path, config_text(good_sections(tmp_path)))
    done = run_tgg("status", "-c", path)
    assert done.returncode == RUNTIME and "no gateway has run" in done.stderr


def test_status_as_text_and_as_json_and_after_the_end(tmp_path):
    gateway = Gateway(tmp_path)
    text = dict(line.split(" ", 1) for line in run_tgg("status", "-c", gateway.config_path).stdout.splitlines())
    status = gateway.status()
    shard = status["shards"][0]
    assert text["state"] == shard["state"] == "running" and int(text["pid"]) == shard["pid"] > 0
    assert shard["restarts"] == 0 and status["supervisor_pid"] == gateway.process.pid
    assert {name for name in shard["counters"]} <= set(text)
    # The announcer, which finds no register here, goes on counting.
    still = {name for name in shard["counters"] if not name.startswith("register_")}
    assert {name: gateway.counters()[name] for name in still} == {name: shard["counters"][name] for name in still}
    assert {name: status["counters"][name] for name in still} == {name: shard["counters"][name] for name in still}
    assert gateway.stop() == 0
    done = run_tgg("status", "--json", "-c", gateway.config_path)
    assert done.returncode == RUNTIME
    assert json.loads(done.stdout)["gateway_running"] is False
    assert json.loads(done.stdout)["shards"][0]["state"] == "stopped"


def test_status_of_several_shards(tmp_path):
    with Gateway(tmp_path, gateway={"shards": 3, "edge_shards": "0,2", "link_shards": "0-1", "cpus": "none"}, shards=3) as gateway:
        wait_for(lambda: any(p["kind"] == "announcer" and p["pid"] for p in gateway.status()["processes"]), what="the announcer")
        status = gateway.status()
        shards = status["shards"]
        assert [s["shard"] for s in shards] == [0, 1, 2] and len({s["pid"] for s in shards}) == 3
        assert [(s["edge"], s["link"]) for s in shards] == [(True, True), (False, True), (True, False)]
        assert [s["cpu"] for s in shards] == [-1, -1, -1]
        assert status["n_shards"] == 3 and status["state"] == "running"
        assert status["config"] == str(gateway.config_path)
        kinds = [(p["kind"], p["number"], p["state"]) for p in status["processes"]]
        assert kinds == [("supervisor", 0, "alive"), ("announcer", 0, "alive")] + [("shard", i, "alive") for i in range(3)] + [("admin", 0, "alive")]
        assert [p["pid"] for p in status["processes"]][2:5] == [s["pid"] for s in shards]
        assert status["processes"][0]["pid"] == gateway.process.pid
        lines = run_tgg("status", "-c", gateway.config_path).stdout.splitlines()
        text = dict(line.split(None, 1) for line in lines)
        assert text["shards"] == "3" and text["state"] == "running" and int(text["pid"]) == shards[0]["pid"]
        rows = [line.split() for line in lines if line.startswith("shard_")]
        assert [int(row[3]) for row in rows] == [s["pid"] for s in shards]
        assert [row[5] for row in rows] == ["edge+link", "link", "edge"]


def test_shards_are_pinned_each_to_its_cpu(tmp_path):
    cpus = sorted(os.sched_getaffinity(0))
    with Gateway(tmp_path, gateway={"shards": len(cpus), "cpus": ",".join(map(str, cpus))}, shards=len(cpus)) as gateway:
        for cpu, shard in zip(cpus, gateway.status()["shards"]):
            assert os.sched_getaffinity(shard["pid"]) == {cpu} and shard["cpu"] == cpu
        with open("/proc/%d/comm" % gateway.shard_pid()) as f:
            assert f.read() == "tgg shard 0\n"


def test_ids_of_every_shard_go_on_when_there_are_fewer_for_a_while(tmp_path):
    gateway = Gateway(tmp_path, gateway={"shards": 3}, shards=3)
    seqs = [s["next_seq"] for s in gateway.status()["shards"]]
    gateway.stop()
    sections = gateway.sections
    for n in (1, 3):
        sections["gateway"]["shards"] = n
        path = write(tmp_path, config_text(sections))
        process = Process([TGG, "gateway", "-c", path], tmp_path, "gateway-%d" % n)

        def running():
            done = run_tgg("status", "--json", "-c", path)
            return done.returncode == 0 and json.loads(done.stdout)["state"] == "running" and json.loads(done.stdout)

        status = wait_for(running, what="the shards to run")
        assert all(s["next_seq"] >= seq for s, seq in zip(status["shards"], seqs))
        assert len(status["shards"]) == n and "continued=yes" in process.err()
        process.stop()


def test_a_runtime_dir_that_cannot_be_made_is_a_warning(tmp_path):
    (tmp_path / "run").write_text("a file is in the way")
    sections = good_sections(tmp_path)
    path = write(tmp_path, config_text(sections))
    process = Process([TGG, "gateway", "-c", path], tmp_path, "gateway")
    wait_for(lambda: "shard_started" in process.err(), what="the shard")
    assert "runtime_dir_not_usable" in process.err()
    process.stop()


# -- the supervisor and its shard


def test_a_killed_shard_is_started_again_and_counted(tmp_path):
    with Gateway(tmp_path) as gateway:
        first = gateway.shard_pid()
        seq = gateway.status()["shards"][0]["next_seq"]
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: gateway.shard_pid() not in (0, first), what="another shard")
        gateway.wait_ready()
        shard = gateway.status()["shards"][0]
        assert shard["restarts"] == 1
        assert shard["next_seq"] >= seq
        assert "shard_died" in gateway.log() and "signal=9" in gateway.log()
        assert can_connect(gateway.client_address("text"))


def test_restarts_back_off(tmp_path):
    with Gateway(tmp_path) as gateway:
        for deaths in range(1, 4):
            os.kill(gateway.shard_pid(), signal.SIGKILL)
            wait_for(lambda: gateway.status()["shards"][0]["restarts"] == deaths, what="a death")
            gateway.wait_ready()
        assert re.findall(r"restart_in_ms=(\d+)", gateway.log()) == ["100", "200", "400"]


def test_listeners_take_connections_while_the_shard_is_dead(tmp_path):
    with Gateway(tmp_path) as gateway:
        os.kill(gateway.shard_pid(), signal.SIGKILL)
        wait_for(lambda: gateway.status()["shards"][0]["restarts"] == 1, what="its death")
        assert can_connect(gateway.client_address("websocket"))
        gateway.wait_ready()


def test_no_connection_id_is_used_again_after_a_restart_of_everything(tmp_path):
    gateway = Gateway(tmp_path)
    seq = gateway.status()["shards"][0]["next_seq"]
    shard = gateway.shard_pid()
    gateway.process.expected_end = True
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait()
    wait_for(lambda: not os.path.exists("/proc/%d" % shard), what="the orphaned shard to end")
    gateway.start()
    assert gateway.status()["shards"][0]["next_seq"] >= seq and "continued=yes" in gateway.log()
    gateway.stop()


def test_no_shard_is_left_when_the_supervisor_is_killed(tmp_path):
    gateway = Gateway(tmp_path)
    shard = gateway.shard_pid()
    gateway.process.expected_end = True
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait()
    wait_for(lambda: not os.path.exists("/proc/%d" % shard), what="the shard to end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_end_the_gateway_with_status_0(tmp_path, number):
    gateway = Gateway(tmp_path)
    assert gateway.stop(number) == 0
    assert "ended status=0" in gateway.log()


def test_hup_reads_the_configuration_again(tmp_path):
    with Gateway(tmp_path) as gateway:
        pid = gateway.shard_pid()
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_log("reloaded config=")
        assert gateway.shard_pid() == pid


# -- logs


def test_logs_in_files_are_opened_again_on_usr1(tmp_path):
    logs = tmp_path / "logs"
    with Gateway(tmp_path, log={"target": "file", "directory": logs, "format": "json"}) as gateway:
        wait_for(lambda: (logs / "shard-0.log").exists(), what="the shard's log")
        os.rename(logs / "supervisor.log", logs / "supervisor.log.1")
        os.rename(logs / "shard-0.log", logs / "shard-0.log.1")
        gateway.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: (logs / "supervisor.log").exists(), what="the new log of the supervisor")
        wait_for(lambda: (logs / "shard-0.log").exists(), what="the new log of the shard")
        wait_for(lambda: (logs / "supervisor.log").read_text(), what="a line in it")
        assert gateway.process.err() == ""
    for line in (logs / "supervisor.log.1").read_text().splitlines():
        assert json.loads(line)["process"] == "supervisor"


def test_the_announcer_has_a_log_of_its_own(tmp_path):
    logs = tmp_path / "logs"
    with Register(tmp_path) as register, Gateway(tmp_path, registers=[register.address], log={"target": "file", "directory": logs}) as gateway:
        log = logs / "announcer.log"
        wait_for(lambda: log.exists() and "register_connected" in log.read_text(), what="the announcer's log")
        os.rename(log, logs / "old.log")
        gateway.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: log.exists() and "log_reopened" in log.read_text(), what="the new log of the announcer")


def test_a_cpu_that_is_not_there_is_told(tmp_path):
    sections = good_sections(tmp_path)
    sections["gateway"]["cpus"] = "1023"
    path = write(tmp_path, config_text(sections))
    assert run_tgg("gateway", "-t", "-c", path).returncode == OK, "it may be there on the machine that it is for"
    done = run_tgg("gateway", "-c", path)
    assert done.returncode == RUNTIME and "[gateway] cpus: CPU 1023 is not one that this process may run on" in done.stderr


def test_the_registers_log_is_opened_again_on_usr1(tmp_path):
    logs = tmp_path / "logs"
    with Register(tmp_path, log={"target": "file", "directory": logs}) as register:
        os.rename(logs / "register.log", logs / "old.log")
        register.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: (logs / "register.log").exists(), what="the new log")
    assert "register_started" in (logs / "old.log").read_text()
    assert "register_ended" in (logs / "register.log").read_text()


def test_a_log_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    sections = good_sections(tmp_path)
    sections["log"] = {"target": "file", "directory": tmp_path / "file" / "logs"}
    done = run_tgg("gateway", "-c", write(tmp_path, config_text(sections)))
    assert done.returncode == RUNTIME and "[log] directory:" in done.stderr


def test_the_register_ends_on_term(tmp_path):
    register = Register(tmp_path)
    started = time.monotonic()
    assert register.stop(signal.SIGTERM) == 0
    assert time.monotonic() - started < 5
