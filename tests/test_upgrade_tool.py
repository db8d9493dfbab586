# SPDX-License-Identifier: MIT
"""tgg upgrade: what it says when something is wrong, and how it ends. Who answers is a server of the test's where it
does not matter what a gateway is."""

import os
import shutil
import socket
import subprocess
import threading

import pytest

from proc import Gateway, PATIENCE, Process, TGG, config_text, free_port, run_tgg, sanitizer_env, wait_for

pytestmark = pytest.mark.tgg_only


@pytest.fixture
def config(tmp_path):
    """A good configuration, in which nothing runs yet."""
    path = tmp_path / "tgg_conf.ini"
    sections = {
        "gateway": {"runtime_dir": tmp_path / "run"},
        "listen websocket": {"address": "127.0.0.1", "port": free_port(), "protocol": "websocket"},
        "register": {"port": free_port()},
    }
    path.write_text(config_text(sections))
    (tmp_path / "run").mkdir()
    return path


class Server(threading.Thread):
    """Takes one question at runtime_dir/upgrade.sock, and answers it with these lines."""

    def __init__(self, config, *lines, name="upgrade.sock", reads=True):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(config.parent / "run" / name))
        self.listener.listen()
        self.lines, self.reads, self.question = lines, reads, None
        self.start()

    def run(self):
        peer, _ = self.listener.accept()
        if self.reads:
            self.question = peer.makefile().readline()
        for line in self.lines:
            peer.sendall(line)
        peer.close()


def upgrade(config, *args):
    return run_tgg("upgrade", "-c", config, *args, timeout=60)


def program(tmp_path, text, mode=0o755):
    path = tmp_path / "program"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_it_shows_how_it_goes(config):
    server = Server(config, b"progress one\nprog", b"ress two\n", b"done pause_ms=12 clients=3\n")
    done = upgrade(config, TGG)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "%s: tgg %s" % (os.path.realpath(TGG), run_tgg("--version").stdout.split()[1])
    assert lines[1] == "%s: good" % config
    said = [line.split(None, 2)[1:] for line in lines[2:]]
    assert said == [["ms", "one"], ["ms", "two"], ["ms", "done: pause_ms=12 clients=3"]]
    assert all(line.split()[0].isdigit() for line in lines[2:])
    assert server.question == "upgrade %s\n" % os.path.realpath(TGG)


def test_without_a_name_it_is_this_program(config):
    server = Server(config, b"done x\n")
    assert upgrade(config).returncode == 0
    assert server.question == "upgrade %s\n" % os.path.realpath(TGG)


def test_a_relative_name_becomes_an_absolute_one(config, tmp_path):
    server = Server(config, b"done x\n")
    os.symlink(TGG, tmp_path / "link")
    argv = [TGG, "upgrade", "-c", config, "link"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=60, env=sanitizer_env())
    assert done.returncode == 0
    assert server.question == "upgrade %s\n" % os.path.realpath(TGG)


def test_quiet(config):
    Server(config, b"progress one\n", b"done x\n")
    done = upgrade(config, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "answer, status, says",
    [
        (b"failed the new one ended\n", 1, "the new one ended"),
        (b"busy another upgrade is under way\n", 75, "another upgrade is under way"),
        (b"progress one\n", 1, "without saying how it went"),
        (b"", 1, "without saying how it went"),
        (b"done without its end", 1, "without saying how it went"),
        (b"x" * 20000, 1, "without saying how it went"),
    ],
    ids=["failed", "busy", "no_end", "nothing", "half_a_line", "rubbish"],
)
def test_how_it_ends(config, answer, status, says):
    Server(config, answer)
    done = upgrade(config, "-q")
    assert done.returncode == status
    assert says in done.stderr and done.stdout == ""


def test_an_answer_before_the_question(config):
    Server(config, b"busy another upgrade is under way\n", reads=False)
    assert upgrade(config).returncode == 75


def test_of_the_register(config):
    port = next(line.split()[-1] for line in reversed(config.read_text().splitlines()) if line.startswith("port"))
    server = Server(config, b"done x\n", name="register-%s.sock" % port)
    assert upgrade(config, "--register").returncode == 0
    assert server.question == "upgrade %s\n" % os.path.realpath(TGG)


def test_nothing_runs(config):
    done = upgrade(config)
    assert done.returncode == 1 and "no gateway runs with this runtime_dir" in done.stderr
    done = upgrade(config, "--register")
    assert done.returncode == 1 and "no register with port" in done.stderr
    with socket.socket(socket.AF_UNIX) as left:  # by one that was killed
        left.bind(str(config.parent / "run" / "upgrade.sock"))
    done = upgrade(config)
    assert done.returncode == 1 and "no gateway runs with this runtime_dir" in done.stderr


def test_check_asks_nobody(config):
    server = Server(config)
    done = upgrade(config, "--check", TGG)
    assert done.returncode == 0 and "good" in done.stdout
    assert upgrade(config, "--check", "--register").returncode == 0
    assert server.question is None and server.is_alive()


@pytest.mark.parametrize(
    "text, mode, says",
    [
        (None, None, "No such file"),
        ("#!/bin/sh\n", 0o644, "not a program that can be started"),
        ("not a program", 0o755, "Exec format error"),
        ("#!/bin/sh\nexit 3\n", 0o755, "ended with status 3"),
        ("#!/bin/sh\nkill -9 $$\n", 0o755, "ended by signal 9"),
        ("#!/bin/sh\necho other 1.0\n", 0o755, "is not tgg"),
    ],
    ids=["missing", "no_permission", "no_program", "status", "signal", "another"],
)
def test_a_binary_that_cannot_be(config, tmp_path, text, mode, says):
    server = Server(config)
    path = program(tmp_path, text, mode) if text is not None else tmp_path / "missing"
    done = upgrade(config, path)
    assert done.returncode == 1 and says in done.stderr
    assert server.question is None and server.is_alive()


def test_a_folder_is_no_binary(config, tmp_path):
    done = upgrade(config, tmp_path)
    assert done.returncode == 1 and "not a program" in done.stderr


@pytest.mark.parametrize("which", [(), ("--register",)])
def test_a_wrong_configuration_is_told_with_file_and_line(config, which):
    server = Server(config)
    config.write_text(config.read_text() + "max_connections = many\n")
    line = len(config.read_text().splitlines())
    done = upgrade(config, *which)
    assert done.returncode == 78
    assert "%s:%d" % (config, line) in done.stderr and "nothing has been asked for" in done.stderr
    assert server.question is None and server.is_alive()


def test_what_the_new_one_says_of_the_configuration_counts(config, tmp_path):
    text = '#!/bin/sh\ncase "$*" in\n--version) echo tgg 9.9;;\n*) echo "$*: too old a key" >&2; exit 78;;\nesac\n'
    done = upgrade(config, program(tmp_path, text))
    assert done.returncode == 78
    assert "gateway -t -c %s: too old a key" % config in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_no_permission(config, tmp_path):
    server = Server(config)
    os.chmod(config.parent / "run" / "upgrade.sock", 0o600)
    for folder in [tmp_path, *list(tmp_path.parents)[:-2]]:
        os.chmod(folder, 0o755)
    copy = "/tmp/tgg-upgrade-tool-%d" % os.getpid()  # where anybody can start it
    shutil.copy(TGG, copy)
    try:
        done = subprocess.run(
            [copy, "upgrade", "-c", config],
            capture_output=True,
            text=True,
            user=65534,
            group=65534,
            extra_groups=[],
            timeout=60,
            env=sanitizer_env(),
        )
    finally:
        os.unlink(copy)
    assert done.returncode == 1 and "only root and the user that it runs as" in done.stderr
    assert server.question is None


def test_usage():
    done = run_tgg("upgrade", "--help")
    assert done.returncode == 0 and "BINARY" in done.stdout and done.stderr == ""
    for wrong in (["--nonsense"], ["a", "b"]):
        done = run_tgg("upgrade", *wrong)
        assert done.returncode == 2 and "usage" in done.stderr
    assert "upgrade" in run_tgg("--help").stdout


def test_a_gateway_that_does_not_know_it(tmp_path):
    """One of a version before has no socket."""
    with Gateway(tmp_path) as gateway:
        path = os.path.join(gateway.sections["gateway"]["runtime_dir"], "upgrade.sock")
        wait_for(lambda: os.path.exists(path), what="the socket")
        os.unlink(path)
        done = upgrade(gateway.config_path)
        assert done.returncode == 1
        assert "process %d" % gateway.process.pid in done.stderr and "cannot hand over" in done.stderr


def test_tgg_run_is_not_upgraded(tmp_path):
    """Its parts are no programs of their own."""
    port, register_port = free_port(), free_port()
    config = tmp_path / "run.ini"
    config.write_text(
        config_text(
            {
                "gateway": {
                    "start_port": free_port(),
                    "register_address": "127.0.0.1:%d" % register_port,
                    "runtime_dir": tmp_path / "run",
                    "drain_timeout": 2,
                },
                "listen web": {"address": "127.0.0.1", "port": port, "protocol": "websocket"},
                "register": {"port": register_port},
                "admin": {"enabled": "no"},
            }
        )
    )
    run = Process([TGG, "run", "-c", config, "--http", free_port()], tmp_path, "run")
    try:
        wait_for(lambda: "open http" in run.out(), PATIENCE, "tgg run")
        for which in ((), ("--register",)):
            done = upgrade(config, *which)
            assert done.returncode == 1 and "tgg run" in done.stderr, done
        assert run.is_running()
        run.stop()
    finally:
        run.kill_all()
