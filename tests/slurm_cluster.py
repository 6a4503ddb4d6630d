"""A real Slurm on this machine alone, below one folder: for tests of the cluster profile.

    python tests/slurm_cluster.py install                    Debian's packages, without starting a daemon (root)
    python tests/slurm_cluster.py up FOLDER [--accounting]   munge, slurmctld, slurmd; also MariaDB and slurmdbd
    python tests/slurm_cluster.py status FOLDER
    python tests/slurm_cluster.py down FOLDER                stops what `up` started, by process id

One node with two GPUs that are ordinary files, 64 CPUs and 256 GB that are not there, partitions cpu and gpu. Daemons
listen on free ports of the loopback and have their own key; nothing below /etc is read or written. FOLDER/env.sh puts
FOLDER/bin first on PATH, whose commands know this cluster. FOLDER/log/tasks.tsv gets a line for every task that starts.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from slurm_conf import ACCOUNTED, CONF, SLURMDBD, TASK

NODE, GPUS, CPUS, MEGABYTES = "node", 2, 64, 256_000
CLIENTS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare")
PACKAGES = {
    "munge": "munged",
    "slurm-client": "sbatch",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "mariadb-server-core": "mariadbd",
    "mariadb-client-core": "mariadb",
}
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb")
ORDER = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd")


class ClusterError(Exception):
    """Why there is no cluster here, in one line."""


def missing(accounting: bool) -> list[str]:
    """The packages whose commands are not there."""
    needed = {package: command for package, command in PACKAGES.items() if accounting or command not in ACCOUNTING}
    return [package for package, command in needed.items() if not shutil.which(command, path=_path())]


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def install() -> None:
    """Install what is missing; no daemon is started, whatever the packages would do."""
    packages = missing(accounting=True)
    if not packages:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise ClusterError(f"{' '.join(packages)} are missing, and only root can install them, on Debian or Ubuntu")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(["apt-get", "update", "--quiet"], check=True, stdout=sys.stderr)
        words = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *packages]
        subprocess.run(words, check=True, env=environment, stdout=sys.stderr)
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"{' '.join(packages)} could not be installed: {error}") from None
    finally:
        if ours:
            policy.unlink()


class Cluster:
    """The daemons that were started below one folder; `accounting` with a database, so that sacct answers."""

    def __init__(self, folder: Path, accounting: bool = False) -> None:
        self.folder, self.accounting = folder.resolve(), accounting
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def up(self) -> None:
        """Start everything, or what is not running; ClusterError, with the daemons stopped, if that fails."""
        if os.geteuid():
            raise ClusterError("slurmd runs jobs as other users, so only root can start it")
        if packages := missing(self.accounting):
            raise ClusterError(f"{' '.join(packages)} are missing: make slurm installs them")
        for name in ("bin", "etc", "gpu", "log", "munge", "run", "spool", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # munge refuses a socket below a folder that others may write to
        if not (self.folder / "etc/slurm.conf").is_file():
            self._configure()
        try:
            for daemon in ORDER:
                if self.accounting or daemon not in ("mariadbd", "slurmdbd"):
                    self.start(daemon)
        except ClusterError:
            self.down()
            raise

    def down(self) -> None:
        """Stop every daemon, the last one first, and what is left of jobs."""
        for daemon in reversed(ORDER):
            self.stop(daemon)

    def _configure(self) -> None:
        ports = dict(zip(("controller", "worker", "accountant", "database"), map(str, _free_ports(4)), strict=True))
        sizes = {"node": NODE, "gpus": str(GPUS), "cpus": str(CPUS), "memory": str(MEGABYTES)}
        known = {"folder": str(self.folder), "host": socket.gethostname().split(".")[0], **sizes, **ports}
        known["word"] = secrets.token_hex(16)
        etc, programs = self.folder / "etc", self.folder / "bin"
        for number in range(GPUS):
            (self.folder / f"gpu/{number}").symlink_to("/dev/null")
        _private(self.folder / "munge/key", secrets.token_bytes(1024))
        (etc / "gres.conf").write_text(f"NodeName={NODE} Name=gpu File={self.folder}/gpu/[0-{GPUS - 1}]\n")
        _private(etc / "slurmdbd.conf", SLURMDBD.format(**known).encode())
        _private(etc / "database.port", ports["database"].encode())
        _private(etc / "database.word", known["word"].encode())
        # the plugin hides SLURM_* from what it starts, so the commands themselves must know the cluster
        for name in CLIENTS:
            text = f'#!/bin/sh\nexport SLURM_CONF={etc}/slurm.conf\nexec {shutil.which(name)} "$@"\n'
            _program(programs / name, text)
        _program(programs / "task", TASK.format(**known))
        (self.folder / "env.sh").write_text(f"export PATH={programs}:$PATH\n")
        (etc / "slurm.conf").write_text((CONF + ACCOUNTED * self.accounting).format(**known).lstrip())

    # daemons

    def start(self, daemon: str, answering: bool = True) -> None:
        """Start a daemon and wait until it answers; nothing if it runs."""
        if not self.running(daemon):
            command = {
                "munged": self._munged,
                "mariadbd": self._mariadbd,
                "slurmdbd": lambda: [_which("slurmdbd"), "-D"],
                "slurmctld": lambda: [_which("slurmctld"), "-D"],
                "slurmd": lambda: [_which("slurmd"), "-D", "-N", NODE],
            }[daemon]()
            with (self.folder / f"log/{daemon}.out").open("ab") as log:
                environment = {**os.environ, "SLURM_CONF": f"{self.folder}/etc/slurm.conf"}
                process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
            self._children[daemon] = process
            self._pid(daemon).write_text(f"{process.pid} {_born(process.pid)}")
        if not answering:
            return
        answers: dict[str, Callable[[], object]] = {
            "munged": lambda: self._asked("munge", "-n", "-S", f"{self.folder}/munge/socket"),
            "mariadbd": lambda: self._sql("select 1"),
            "slurmdbd": lambda: self._asked("sacctmgr", "-n", "show", "cluster"),
            "slurmctld": lambda: "UP" in self.ask("scontrol", "ping"),
            "slurmd": lambda: self.ask("sinfo", "-h", "-o", "%t").split()[0] in ("idle", "mix", "alloc"),
        }
        self._wait(daemon, answers[daemon])
        if daemon == "mariadbd":
            word = (self.folder / "etc/database.word").read_text()
            user = "slurm@'127.0.0.1'"
            self._sql(f"create user if not exists {user} identified by '{word}'; grant all on *.* to {user}")
        if daemon == "slurmdbd":
            for entry in (["cluster", "emsr"], ["account", "emsr"], ["user", "root", "account=emsr"]):
                self._asked("sacctmgr", "-i", "add", *entry)

    def _munged(self) -> list[str]:
        munge = self.folder / "munge"
        files = {"key-file": "key", "socket": "socket", "pid-file": "own", "seed-file": "seed"}
        options = [f"--{name}={munge / file}" for name, file in files.items()]
        return [_which("munged"), "--foreground", "--force", *options, f"--log-file={self.folder}/log/munged.log"]

    def _mariadbd(self) -> list[str]:
        data = self.folder / "database"
        common = ["--no-defaults", "--user=root", f"--datadir={data}"]
        if not (data / "mysql").is_dir():
            made = ["--auth-root-authentication-method=normal", "--skip-test-db"]
            subprocess.run([_which("mariadb-install-db"), *common, *made], check=True, capture_output=True)
        port = (self.folder / "etc/database.port").read_text()
        places = [f"--socket={self.folder}/database.socket", f"--port={port}", "--bind-address=127.0.0.1"]
        return [_which("mariadbd"), *common, *places, "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]

    def _sql(self, words: str) -> bool:
        socket_ = f"--socket={self.folder}/database.socket"
        return self._asked("mariadb", "--no-defaults", "--user=root", socket_, "--execute", words)

    def _pid(self, daemon: str) -> Path:
        return self.folder / f"run/{daemon}.pid"

    def running(self, daemon: str) -> int | None:
        """The process of a daemon, if it is the one that was started here."""
        try:
            number, born = self._pid(daemon).read_text().split()
        except (OSError, ValueError):
            return None
        return int(number) if _born(int(number)) == born else None

    def supervisors(self) -> list[int]:
        """The slurmstepd processes of this cluster: those that write to its log."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cmdline").read_bytes().startswith(b"slurmstepd"):
                    files = [os.readlink(file) for file in (process / "fd").iterdir()]
                    found += [int(process.name)] if f"{self.folder}/log/slurmd.log" in files else []
        return found

    def stop(self, daemon: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon and wait for that."""
        number = self.running(daemon)
        if number is None:
            return
        for sent in (how, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(number, sent)
            end = time.monotonic() + 15
            while self.running(daemon) and time.monotonic() < end:
                time.sleep(0.05)
        if child := self._children.pop(daemon, None):
            child.wait()
        self._pid(daemon).unlink(missing_ok=True)

    def _wait(self, daemon: str, answers: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while True:
            with suppress(ClusterError, IndexError):
                if answers():
                    return
            if not self.running(daemon) or time.monotonic() > end:
                lines = (self.folder / f"log/{daemon}.out").read_text(errors="replace").split("\n")
                said = " ".join(lines[-6:]).strip()
                raise ClusterError(f"{daemon} {'does not answer' if self.running(daemon) else 'ended'}: {said}")
            time.sleep(0.1)

    # questions

    def environment(self) -> dict[str, str]:
        """The environment of a user of this cluster."""
        return {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}

    def ask(self, *words: str) -> str:
        """What a command of Slurm prints; ClusterError, in its words, if it fails."""
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PATH": self._programs()})
        if done.returncode:
            raise ClusterError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def _asked(self, *words: str) -> bool:
        with suppress(ClusterError):
            self.ask(*words)
            return True
        return False

    def _programs(self) -> str:
        return f"{self.folder}/bin:{_path()}"


def _which(name: str) -> str:
    found = shutil.which(name, path=_path())
    assert found, name
    return found


def _born(number: int) -> str:
    """When a process started, in ticks; nothing for one that has ended."""
    try:
        state, *fields = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("install", "up", "down", "status"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".slurm"))
    parser.add_argument("--accounting", action="store_true")
    given = parser.parse_args()
    cluster = Cluster(given.folder, given.accounting)
    try:
        if given.verb == "status":
            sys.stdout.writelines(f"{daemon} {cluster.running(daemon) or '-'}\n" for daemon in ORDER)
        else:
            {"install": install, "up": cluster.up, "down": cluster.down}[given.verb]()
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
