# SPDX-License-Identifier: MIT
"""tgg doctor on machines made of files (--root): each finding with good values, bad ones, and none."""

import json
import os
import subprocess

import pytest

from proc import TGG, config_text, run_tgg, sanitizer_env

pytestmark = pytest.mark.tgg_only

OK, RUNTIME, USAGE, CONFIG = 0, 1, 2, 78

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max core file size        %s                    %s            bytes
Max open files            %s                 %s                files
Max address space         %s            unlimited            bytes
"""
STATUS = "Name:\ttgg\nUid:\t%d\t%d\t%d\t%d\nCapEff:\t%016x\nCpus_allowed_list:\t%s\n"
MEMINFO = "MemTotal: %d kB\nMemFree: 100 kB\nSwapTotal: %d kB\nSwapFree: %d kB\nHugePages_Total: 0\n"


def limits(nofile="1048576", core="unlimited", address="unlimited"):
    return LIMITS % ("0", core, "1024", nofile, address)


def status(uid=1000, capabilities=0, cpus="0-3"):
    return STATUS % (uid, uid, uid, uid, capabilities, cpus)


def meminfo(total_gib=32, swap_mib=0, swap_free_mib=0):
    return MEMINFO % (total_gib * (1 << 20), swap_mib << 10, swap_free_mib << 10)


def sysctl(key):
    return "proc/sys/" + key.replace(".", "/")


NIC = "sys/class/net/eth0/"
THP = "sys/kernel/mm/transparent_hugepage/enabled"
CLOCK = "sys/devices/system/clocksource/clocksource0/current_clocksource"
GOVERNOR = "sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor"

# A machine on which nothing is wrong for 100,000 connections.
GOOD = {
    "proc/self/limits": limits(),
    "proc/self/status": status(),
    "proc/self/cgroup": "0::/system.slice/tgg.service\n",
    "proc/self/mounts": "/dev/sda1 / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\ntmpfs /run/lock tmpfs rw 0 0\n",
    "proc/meminfo": meminfo(),
    sysctl("fs.nr_open"): "1048576",
    sysctl("fs.file-max"): "9223372036854775807",
    sysctl("fs.file-nr"): "2000\t0\t9223372036854775807",
    sysctl("fs.epoll.max_user_watches"): "3000000",
    sysctl("net.core.somaxconn"): "65535",
    sysctl("net.core.netdev_max_backlog"): "5000",
    sysctl("net.ipv4.tcp_max_syn_backlog"): "65535",
    sysctl("net.ipv4.tcp_syncookies"): "1",
    sysctl("net.ipv4.tcp_mem"): "300000\t400000\t600000",
    sysctl("net.ipv4.tcp_rmem"): "4096\t131072\t6291456",
    sysctl("net.ipv4.tcp_wmem"): "4096\t16384\t4194304",
    sysctl("net.ipv4.tcp_tw_reuse"): "2",
    sysctl("net.ipv4.tcp_fin_timeout"): "60",
    sysctl("net.ipv4.tcp_max_orphans"): "131072",
    sysctl("net.ipv4.ip_local_port_range"): "32768\t60999",
    sysctl("net.ipv4.ip_local_reserved_ports"): "",
    sysctl("net.ipv4.ip_unprivileged_port_start"): "1024",
    sysctl("vm.overcommit_memory"): "0",
    sysctl("vm.max_map_count"): "65530",
    sysctl("kernel.core_pattern"): "|/usr/lib/systemd/systemd-coredump %P",
    "etc/systemd/system.conf": "[Manager]\n#DefaultLimitNOFILE=1024:524288\n",
    "sys/fs/cgroup/system.slice/tgg.service/memory.max": "max",
    "sys/fs/cgroup/system.slice/tgg.service/cpu.max": "max 100000",
    THP: "always [madvise] never",
    CLOCK: "tsc",
    "sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm",
    "sys/devices/system/cpu/isolated": "",
    GOVERNOR % 0: "performance",
    GOVERNOR % 1: "schedutil",
    NIC + "operstate": "up",
    NIC + "device/vendor": "0x8086",
    NIC + "queues/rx-0/rps_cpus": "0",
    NIC + "queues/rx-1/rps_cpus": "0",
    "sys/class/net/lo/operstate": "unknown",
    "run/chrony/chronyd.pid": "1",
    "run/keep": "",
    "var/log/keep": "",
}
CONFIG_GOOD = {
    "gateway": {"start_port": 2900, "shards": 2, "runtime_dir": "/run/tgg_gw"},
    "listen web": {"port": 8282, "protocol": "websocket"},
}
# The name of each finding, and the file or files without which it is not known.
FILES = {
    "nofile": ["proc/self/limits"],
    "fs.nr_open": [sysctl("fs.nr_open")],
    "fs.file-max": [sysctl("fs.file-max")],
    "fs.epoll.max_user_watches": [sysctl("fs.epoll.max_user_watches")],
    "address_space": ["proc/self/limits"],
    "net.core.somaxconn": [sysctl("net.core.somaxconn")],
    "net.core.netdev_max_backlog": [sysctl("net.core.netdev_max_backlog")],
    "net.ipv4.tcp_max_syn_backlog": [sysctl("net.ipv4.tcp_max_syn_backlog")],
    "net.ipv4.tcp_syncookies": [sysctl("net.ipv4.tcp_syncookies")],
    "net.ipv4.tcp_mem": [sysctl("net.ipv4.tcp_mem")],
    "net.ipv4.tcp_rmem": [sysctl("net.ipv4.tcp_rmem")],
    "net.ipv4.tcp_wmem": [sysctl("net.ipv4.tcp_wmem")],
    "net.ipv4.tcp_tw_reuse": [sysctl("net.ipv4.tcp_tw_reuse")],
    "net.ipv4.tcp_fin_timeout": [sysctl("net.ipv4.tcp_fin_timeout")],
    "net.ipv4.tcp_max_orphans": [sysctl("net.ipv4.tcp_max_orphans")],
    "net.ipv4.ip_local_port_range": [sysctl("net.ipv4.ip_local_port_range")],
    "nic": [NIC + "device/vendor"],
    "memory": ["proc/meminfo"],
    "swap": ["proc/meminfo"],
    "vm.nr_hugepages": ["proc/meminfo"],
    "vm.overcommit_memory": [sysctl("vm.overcommit_memory")],
    "vm.max_map_count": [sysctl("vm.max_map_count")],
    "transparent_huge_pages": [THP],
    "cpus": ["proc/self/status"],
    "clock_source": [CLOCK],
    "cpu_governor": [GOVERNOR % 0, GOVERNOR % 1],
    "core_limit": ["proc/self/limits"],
    "kernel.core_pattern": [sysctl("kernel.core_pattern")],
}


class Machine:
    def __init__(self, folder):
        self.root = os.path.join(str(folder), "root")
        self.config_path = os.path.join(str(folder), "conf.ini")
        self.configure()
        for path, text in GOOD.items():
            self.write(path, text)

    def configure(self, **changes):
        sections = {title: dict(keys) for title, keys in CONFIG_GOOD.items()}
        for title, keys in changes.items():
            sections.setdefault(title.replace("listen_", "listen "), {}).update(keys)
        with open(self.config_path, "w") as f:
            f.write(config_text(sections))

    def write(self, path, text):
        whole = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "w") as f:
            f.write(text + ("" if text.endswith("\n") else "\n"))

    def remove(self, path):
        whole = os.path.join(self.root, path)
        os.remove(whole)
        if path.endswith("device/vendor"):
            os.rmdir(os.path.dirname(whole))

    def run(self, *args):
        return run_tgg("doctor", "-c", self.config_path, "--root", self.root, *args)

    def look(self, *args):
        """The findings by name, and the exit status."""
        done = self.run("--json", *args)
        assert done.stderr == "", done.stderr
        report = json.loads(done.stdout)
        findings = {finding["name"]: finding for finding in report["findings"]}
        assert len(findings) == len(report["findings"]), "a name twice"
        for level in ("ok", "unknown", "warn", "bad"):
            assert report[level] == sum(f["level"] == level for f in findings.values())
        assert report["good"] == (report["bad"] == 0)
        assert done.returncode == (OK if report["good"] else RUNTIME)
        return findings

    def not_ok(self, *args):
        return {name: f["level"] for name, f in self.look(*args).items() if f["level"] != "ok"}


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_on_a_good_machine_all_is_well(machine):
    assert machine.not_ok() == {}
    done = machine.run()
    assert done.returncode == OK and "100000 connections" in done.stdout and "0 bad, 0 warn" in done.stdout


@pytest.mark.parametrize("name", FILES)
def test_what_is_not_to_be_seen_is_unknown_and_no_fault(machine, name):
    for path in FILES[name]:
        machine.remove(path)
    levels = machine.not_ok()
    assert levels[name] == "unknown"
    assert set(levels.values()) == {"unknown"}


def test_a_machine_of_which_nothing_is_seen(machine, tmp_path):
    """Such as a container that hides everything: nothing is bad but what we could not write to."""
    machine.root = str(tmp_path / "empty")
    os.makedirs(machine.root + "/run")
    levels = machine.not_ok()
    assert set(levels) >= set(FILES) - {"nic"} and "bad" not in levels.values()


EMPTY, JUNK = "\n", "what?\n"


@pytest.mark.parametrize("text", [EMPTY, JUNK], ids=["empty", "junk"])
def test_files_without_sense_do_no_harm(machine, text):
    for path in GOOD:
        if not path.startswith(("run/", "var/", NIC + "device")):
            machine.write(path, text)
    machine.look()


# name: level, files that are changed, configuration, text in `now` or `keep`
CASES = {
    "nofile low": ("nofile", "bad", {"proc/self/limits": limits(nofile="4096")}, {}, "LimitNOFILE=52760"),
    "nofile just enough": ("nofile", "ok", {"proc/self/limits": limits(nofile="52760")}, {}, ""),
    "nofile one too low": ("nofile", "bad", {"proc/self/limits": limits(nofile="52759")}, {}, "ulimit -n 52760"),
    "nofile unlimited": ("nofile", "ok", {"proc/self/limits": limits(nofile="unlimited")}, {}, ""),
    "nofile of many shards": ("nofile", "ok", {"proc/self/limits": limits(nofile="20000")}, {"gateway": {"shards": 8}}, ""),
    "nofile of one edge shard": ("nofile", "bad", {"proc/self/limits": limits(nofile="60000")}, {"gateway": {"edge_shards": 0}}, "LimitNOFILE=100260"),
    "systemd default": ("systemd_nofile", "warn", {"etc/systemd/system.conf": "[Manager]\nDefaultLimitNOFILE=1024:4096\n"}, {}, "LimitNOFILE=52760"),
    "systemd one number": ("systemd_nofile", "warn", {"etc/systemd/system.conf": "[Manager]\nDefaultLimitNOFILE=4096\n"}, {}, "LimitNOFILE"),
    "systemd infinity": ("systemd_nofile", "ok", {"etc/systemd/system.conf": "[Manager]\nDefaultLimitNOFILE=infinity\n"}, {}, ""),
    "nr_open": ("fs.nr_open", "bad", {sysctl("fs.nr_open"): "10000"}, {}, "sysctl -w fs.nr_open=52760"),
    "file-max": ("fs.file-max", "bad", {sysctl("fs.file-max"): "100000"}, {}, "fs.file-max = 112512"),
    "file-max little room": ("fs.file-max", "warn", {sysctl("fs.file-max"): "103000"}, {}, "fs.file-max = 112512"),
    "file-max others": ("fs.file-max", "bad", {sysctl("fs.file-max"): "200000", sysctl("fs.file-nr"): "150000 0 200000"}, {}, "fs.file-max"),
    "epoll watches": ("fs.epoll.max_user_watches", "bad", {sysctl("fs.epoll.max_user_watches"): "90000"}, {}, "max_user_watches=100512"),
    "address space": ("address_space", "bad", {"proc/self/limits": limits(address="4294967296")}, {}, "LimitAS=infinity"),
    "somaxconn default of old": ("net.core.somaxconn", "bad", {sysctl("net.core.somaxconn"): "128"}, {}, "net.core.somaxconn=13125"),
    "somaxconn default": ("net.core.somaxconn", "warn", {sysctl("net.core.somaxconn"): "4096"}, {}, "net.core.somaxconn = 13125"),
    "somaxconn small backlog": ("net.core.somaxconn", "ok", {sysctl("net.core.somaxconn"): "2000"}, {"listen_web": {"backlog": 2000}}, ""),
    "syn backlog": ("net.ipv4.tcp_max_syn_backlog", "warn", {sysctl("net.ipv4.tcp_max_syn_backlog"): "256"}, {}, "=13125"),
    "netdev backlog": ("net.core.netdev_max_backlog", "warn", {sysctl("net.core.netdev_max_backlog"): "1000"}, {}, "=5000"),
    "syncookies": ("net.ipv4.tcp_syncookies", "warn", {sysctl("net.ipv4.tcp_syncookies"): "0"}, {}, "net.ipv4.tcp_syncookies = 1"),
    "tcp_mem tiny": ("net.ipv4.tcp_mem", "bad", {sysctl("net.ipv4.tcp_mem"): "3000 4000 6000"}, {}, "tcp_mem='50000 75000 100000'"),
    "tcp_mem small": ("net.ipv4.tcp_mem", "warn", {sysctl("net.ipv4.tcp_mem"): "30000 40000 60000"}, {}, "tcp_mem = 50000 75000 100000"),
    "tcp_mem huge": ("net.ipv4.tcp_mem", "warn", {sysctl("net.ipv4.tcp_mem"): "3000000 4000000 6000000"}, {}, "tcp_mem = 1048576 1572864 2097152"),
    "tcp_rmem": ("net.ipv4.tcp_rmem", "warn", {sysctl("net.ipv4.tcp_rmem"): "4096 4194304 16777216"}, {}, "tcp_rmem = 4096 684032 16777216"),
    "tcp_wmem": ("net.ipv4.tcp_wmem", "warn", {sysctl("net.ipv4.tcp_wmem"): "65536 65536 4194304"}, {}, "tcp_wmem = 4096 65536 4194304"),
    "tw_reuse behind a proxy": ("net.ipv4.tcp_tw_reuse", "warn", {sysctl("net.ipv4.tcp_tw_reuse"): "0"}, {"listen_web": {"trusted_proxies": "127.0.0.1"}}, "tcp_tw_reuse = 1"),
    "tw_reuse": ("net.ipv4.tcp_tw_reuse", "ok", {sysctl("net.ipv4.tcp_tw_reuse"): "0"}, {}, ""),
    "fin_timeout": ("net.ipv4.tcp_fin_timeout", "warn", {sysctl("net.ipv4.tcp_fin_timeout"): "600"}, {}, "=60"),
    "orphans": ("net.ipv4.tcp_max_orphans", "warn", {sysctl("net.ipv4.tcp_max_orphans"): "1000"}, {}, "=25000"),
    "conntrack": ("net.netfilter.nf_conntrack_max", "bad", {sysctl("net.netfilter.nf_conntrack_max"): "65536"}, {}, "=135000"),
    "conntrack little room": ("net.netfilter.nf_conntrack_max", "warn", {sysctl("net.netfilter.nf_conntrack_max"): "110000"}, {}, "=135000"),
    "conntrack enough": ("net.netfilter.nf_conntrack_max", "ok", {sysctl("net.netfilter.nf_conntrack_max"): "262144"}, {}, ""),
    "one queue": ("nic.eth0", "warn", {NIC + "queues/rx-1/rps_cpus": None}, {}, "echo f > /sys/class/net/eth0/queues/rx-0/rps_cpus"),
    "one queue of many CPUs": ("nic.eth0", "warn", {NIC + "queues/rx-1/rps_cpus": None, "proc/self/status": status(cpus="0-39")}, {}, "echo ff,ffffffff >"),
    "one queue with RPS": ("nic.eth0", "ok", {NIC + "queues/rx-1/rps_cpus": None, NIC + "queues/rx-0/rps_cpus": "00000000,0000000f"}, {}, ""),
    "one queue for one shard": ("nic.eth0", "ok", {NIC + "queues/rx-1/rps_cpus": None}, {"gateway": {"shards": 1}}, ""),
    "few local ports": ("net.ipv4.ip_local_port_range", "warn", {sysctl("net.ipv4.ip_local_port_range"): "32768 36000"}, {}, "'1024 65535'"),
    "local ports for a proxy": ("net.ipv4.ip_local_port_range", "warn", {}, {"listen_web": {"proxy_protocol": "required", "trusted_proxies": "127.0.0.1"}}, "1024 65535"),
    "ports that overlap": ("ports_reserved", "warn", {sysctl("net.ipv4.ip_local_port_range"): "1024 65535"}, {}, "ip_local_reserved_ports=2900,8282"),
    "admin port that overlaps": ("ports_reserved", "warn", {}, {"admin": {"port": 40000}}, "ip_local_reserved_ports = 40000"),
    "ports that are reserved": ("ports_reserved", "ok", {sysctl("net.ipv4.ip_local_port_range"): "1024 65535", sysctl("net.ipv4.ip_local_reserved_ports"): "2000-2900,8282"}, {}, ""),
    "ports of which one is reserved": ("ports_reserved", "warn", {sysctl("net.ipv4.ip_local_port_range"): "1024 65535", sysctl("net.ipv4.ip_local_reserved_ports"): "2900"}, {}, "=2900,8282"),
    "low port": ("ports_low", "bad", {}, {"listen_web": {"port": 443}}, "AmbientCapabilities=CAP_NET_BIND_SERVICE"),
    "low port of root": ("ports_low", "ok", {"proc/self/status": status(uid=0, capabilities=0x1FFFFFFFFFF)}, {"listen_web": {"port": 443}}, ""),
    "low port of root without capabilities": ("ports_low", "bad", {"proc/self/status": status(uid=0)}, {"listen_web": {"port": 443}}, "ip_unprivileged_port_start=443"),
    "low port with the capability": ("ports_low", "ok", {"proc/self/status": status(capabilities=1 << 10)}, {"listen_web": {"port": 443}}, ""),
    "low port that is allowed": ("ports_low", "ok", {sysctl("net.ipv4.ip_unprivileged_port_start"): "80"}, {"listen_web": {"port": 443}}, ""),
    "memory for TLS": ("memory", "warn", {"proc/meminfo": meminfo(total_gib=1)}, {"listen_web": {"tls_certificate": "/x.pem"}}, ""),
    "memory that is too little": ("memory", "bad", {"proc/meminfo": meminfo(total_gib=0.5)}, {"listen_web": {"tls_certificate": "/x.pem"}}, ""),
    "memory of one GiB without TLS": ("memory", "ok", {"proc/meminfo": meminfo(total_gib=1)}, {}, ""),
    "memory of the cgroup": ("memory", "bad", {"sys/fs/cgroup/system.slice/tgg.service/memory.max": "500000000"}, {}, "MemoryMax="),
    "memory of the cgroup above": ("memory", "bad", {"sys/fs/cgroup/system.slice/memory.max": "500000000"}, {}, "MemoryMax="),
    "memory of a container": ("memory", "bad", {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "500000000"}, {}, "MemoryMax="),
    "memory of a cgroup of version 1": ("memory", "bad", {"proc/self/cgroup": "4:cpu,memory:/docker/x\n", "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "500000000"}, {}, "MemoryMax="),
    "memory of a cgroup of version 1 without limit": ("memory", "ok", {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, {}, ""),
    "overcommit": ("vm.overcommit_memory", "bad", {sysctl("vm.overcommit_memory"): "2"}, {}, "vm.overcommit_memory = 0"),
    "map count": ("vm.max_map_count", "warn", {sysctl("vm.max_map_count"): "10000"}, {}, "=65530"),
    "swap in use": ("swap", "warn", {"proc/meminfo": meminfo(swap_mib=4096, swap_free_mib=1000)}, {}, "MemorySwapMax=0"),
    "swap that is empty": ("swap", "ok", {"proc/meminfo": meminfo(swap_mib=4096, swap_free_mib=4090)}, {}, ""),
    "huge pages always": ("transparent_huge_pages", "warn", {THP: "[always] madvise never"}, {}, "echo madvise > /sys/kernel/mm"),
    "fewer CPUs than shards": ("cpus", "warn", {"proc/self/status": status(cpus="2")}, {}, "shards = 1"),
    "CPUs of a list": ("cpus", "ok", {"proc/self/status": status(cpus="1,3")}, {}, ""),
    "pinned to a CPU that is not there": ("cpus_pinned", "bad", {}, {"gateway": {"cpus": "2,8"}}, "cpus = auto"),
    "pinned": ("cpus_pinned", "ok", {}, {"gateway": {"cpus": "2,3"}}, ""),
    "quota": ("cpu_quota", "warn", {"sys/fs/cgroup/system.slice/tgg.service/cpu.max": "150000 100000"}, {}, "CPUQuota=200%"),
    "quota that is enough": ("cpu_quota", "ok", {"sys/fs/cgroup/system.slice/tgg.service/cpu.max": "200000 100000"}, {}, ""),
    "quota of version 1": ("cpu_quota", "warn", {"proc/self/cgroup": "3:cpu,cpuacct:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, {}, "CPUQuota"),
    "no quota of version 1": ("cpu_quota", "ok", {"proc/self/cgroup": "3:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, {}, ""),
    "isolated CPUs": ("cpus_isolated", "warn", {"sys/devices/system/cpu/isolated": "2-3"}, {}, "cpus = 2-3"),
    "isolated CPUs that are used": ("cpus_isolated", "ok", {"sys/devices/system/cpu/isolated": "2-3"}, {"gateway": {"cpus": "2-3"}}, ""),
    "slow clock": ("clock_source", "warn", {CLOCK: "hpet"}, {}, "echo tsc > /sys/devices/system/clocksource"),
    "clock of a virtual machine": ("clock_source", "ok", {CLOCK: "kvm-clock"}, {}, ""),
    "governor": ("cpu_governor", "warn", {GOVERNOR % 1: "powersave"}, {}, "scaling_governor"),
    "no core files": ("core_limit", "warn", {"proc/self/limits": limits(core="0")}, {}, "LimitCORE=infinity"),
    "core without a folder": ("kernel.core_pattern", "warn", {sysctl("kernel.core_pattern"): "core"}, {}, "/var/corefiles/core.%e.%p"),
    "core in a folder that is not there": ("kernel.core_pattern", "warn", {sysctl("kernel.core_pattern"): "/var/corefiles/core.%e.%p"}, {}, "install -d -m 1777 /var/corefiles"),
    "core in a folder": ("kernel.core_pattern", "ok", {sysctl("kernel.core_pattern"): "/var/corefiles/core.%e.%p", "var/corefiles/keep": ""}, {}, ""),
    "runtime_dir on a disk": ("runtime_dir", "warn", {}, {"gateway": {"runtime_dir": "/var/lib/tgg"}}, "RuntimeDirectory=tgg_gw"),
    "runtime_dir below a file": ("runtime_dir", "bad", {"run/tgg_gw": "a file"}, {}, "install -d"),
    "runtime_dir beside the tmpfs": ("runtime_dir", "warn", {"running/keep": ""}, {"gateway": {"runtime_dir": "/running"}}, "RuntimeDirectory"),
    "log folder that is a file": ("log_directory", "bad", {"var/log/tgg_gateway": "a file"}, {"log": {"target": "file"}}, "LogsDirectory=tgg_gateway"),
    "log folder": ("log_directory", "ok", {}, {"log": {"target": "file"}}, ""),
    "log folder that nobody needs": ("log_directory", "ok", {"var/log/tgg_gateway": "a file"}, {}, ""),
    "no time": ("time", "warn", {"run/chrony/chronyd.pid": None}, {}, "timedatectl"),
    "time of a container": ("time", "unknown", {"run/chrony/chronyd.pid": None, ".dockerenv": ""}, {}, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_each_finding(machine, case):
    name, level, files, config, words = CASES[case]
    machine.configure(**config)
    for path, text in files.items():
        if text is None:
            machine.remove(path)
            os.rmdir(os.path.dirname(os.path.join(machine.root, path)))
        else:
            machine.write(path, text)
    finding = machine.look()[name]
    assert finding["level"] == level, finding
    assert words in finding["now"] + "\n" + finding["keep"], finding
    if level in ("warn", "bad"):
        assert finding["found"] and finding["wanted"] and finding["why"], finding
        shown = machine.run().stdout
        for part in ("found", "wanted", "why", "now", "keep"):
            assert finding[part] in shown
    else:
        assert finding["now"] == finding["keep"] == "", finding


def test_each_finding_has_a_case_that_is_not_ok(machine):
    tried = {name for name, level, *_ in CASES.values() if level in ("warn", "bad")}
    names = set(machine.look())
    assert names - tried <= {"vm.nr_hugepages"}


def test_a_gateway_that_runs_is_looked_at(machine, start):
    """Its limit is that of its start, whatever the shell's is now."""
    gateway = start(gateway={"max_connections": 500}, shards=2).gateway
    machine.root = ""
    machine.config_path = gateway.config_path
    found = machine.look()["running_gateway"]
    assert found["level"] == "bad" and "500 clients on each of 2 shards" in found["found"]
    assert machine.look("--connections", "900")["running_gateway"]["level"] == "ok"
    gateway.stop()
    assert "running_gateway" not in machine.look()


def test_the_number_of_connections(machine):
    def per_shard(*args):
        report = json.loads(machine.run("--json", *args).stdout)
        return report["connections"], report["connections_per_shard"], report["edge_shards"]

    assert per_shard() == (100_000, 52_500, 2)
    assert per_shard("--connections", "7") == (7, 4, 2)
    machine.configure(gateway={"max_connections": 30_000})
    assert per_shard() == (60_000, 31_500, 2)
    assert per_shard("--connections", "2000000") == (2_000_000, 1_050_000, 2)
    machine.configure(gateway={"shards": "auto"})
    assert per_shard() == (100_000, 26_250, 4)
    machine.configure(gateway={"shards": 4, "edge_shards": "0,1"})
    assert per_shard() == (100_000, 52_500, 2)
    assert machine.not_ok("--connections", "100") == {}
    assert "bad" in machine.not_ok("--connections", "5000000").values()


def test_on_this_very_machine(machine):
    """Whatever it is like: it is looked at, and nothing is written."""
    machine.root = ""
    found = machine.look()
    assert found["nofile"]["level"] in ("ok", "bad") and len(found) > 25
    if not any(os.path.exists(path) for path in ("/usr/bin/strace",)):
        return
    trace = os.path.join(os.path.dirname(machine.config_path), "trace")
    subprocess.run(["strace", "-f", "-o", trace, "-e", "trace=file", TGG, "doctor", "-c", machine.config_path], stdout=subprocess.DEVNULL, env=sanitizer_env(), timeout=60)
    with open(trace) as f:
        assert not any(word in f.read() for word in ("O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "unlink", "rename"))


def test_usage_and_configuration(machine, tmp_path):
    done = run_tgg("doctor", "--help")
    assert done.returncode == OK and "--connections" in done.stdout and "--root" not in done.stdout
    for wrong in (["--connections", "0"], ["--connections", "many"], ["--connections", "-1"], ["surplus"], ["-t"]):
        assert machine.run(*wrong).returncode == USAGE
    with open(machine.config_path, "a") as f:
        f.write("[gateway]\nnonsense = 1\n")
    done = machine.run()
    assert done.returncode == CONFIG and "nonsense" in done.stderr
    assert run_tgg("doctor", "-c", tmp_path / "none").returncode == CONFIG
