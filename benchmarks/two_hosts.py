"""Two hosts with a slow, lossy network between them train to the same losses, to the bit.

    python benchmarks/two_hosts.py                       # as root, on Linux
    python benchmarks/two_hosts.py --processes 2 --delay_ms 50 --loss 0.05

Each host is a network namespace with its own address, in which its own `torchrun` trains over gloo.
The kernel hands its packets to this program through a TUN device, which delays each packet, drops
some, and passes the others on to the other host. So it is an IP path on which TCP retransmits lost
packets, and it doesn't need the kernel's `netem`.

The same training runs on one host with as many processes, on two with a perfect link, and on two
with delay and loss; losses, gradient norms and the adapter's bytes are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import heapq
import itertools
import json
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TUN = "/dev/net/tun"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
ADDRESSES = ("10.77.0.1", "10.77.0.2")
DEVICE = "mglora0"
PACKET_BYTES = 1 << 16
PORT = 29_500
"""Fixed, since a namespace has all ports to itself."""
LOOK_S = 0.1
"""How often the link checks whether to stop."""
TIMED = {"elapsed_s", "audio_s_per_s", "tokens_per_s", "peak_memory_bytes"}
"""Figures of a row that differ in every run."""


def lacking() -> str | None:
    """What this machine lacks for separate hosts; None if nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    try:
        with two_hosts(Between()):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"needs {TUN} and network namespaces ({error})"


@dataclass(frozen=True)
class Between:
    """The network between two hosts, in each direction.

    Args:
        delay_s: delay of each packet.
        loss: share of packets that are lost.
    """

    delay_s: float = 0.0
    loss: float = 0.0


class Link(threading.Thread):
    """Carries packets from each of two TUN devices to the other.

    Args:
        ends: their non-blocking descriptors.
        between: the network's delay and loss.
    """

    def __init__(self, ends: Sequence[int], between: Between) -> None:
        super().__init__(daemon=True)
        self._other = dict(zip(ends, reversed(ends), strict=True))
        self._chance, self._order = random.Random(0), itertools.count()
        self._held: list[tuple[float, int, int, bytes]] = []
        self._ended = threading.Event()
        self.between = between
        """May be changed while running: a loss of 1 cuts the cable."""
        self.n_carried = self.n_lost = 0

    def run(self) -> None:
        while not self._ended.is_set():
            wait_s = self._held[0][0] - time.monotonic() if self._held else LOOK_S
            for end in select.select(list(self._other), [], [], min(max(0.0, wait_s), LOOK_S))[0]:
                self._take(end)
            while self._held and self._held[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(self._held)
                os.write(end, packet)
                self.n_carried += 1

    def _take(self, end: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(end, PACKET_BYTES)
                if self._chance.random() < self.between.loss:
                    self.n_lost += 1
                    continue
                due = time.monotonic() + self.between.delay_s
                heapq.heappush(self._held, (due, next(self._order), self._other[end], packet))

    def end(self) -> None:
        self._ended.set()
        self.join()


@dataclass(frozen=True)
class Host:
    """A network namespace and the address of its only device."""

    namespace: str
    address: str

    def start(self, words: Sequence[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a command on this host, which prints into `log`."""
        with open(log, "ab") as sink:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *words],
                env=os.environ | environment,
                stdout=sink,
                stderr=sink,
            )

    def n_sent_again(self) -> int:
        """Segments that its TCP has retransmitted."""
        told = subprocess.check_output(
            ["ip", "netns", "exec", self.namespace, "cat", "/proc/net/snmp"], text=True
        )
        names, values = (line.split() for line in told.splitlines() if line.startswith("Tcp:"))
        return int(values[names.index("RetransSegs")])


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _open_tun(name: str) -> int:
    end = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(end)
        raise
    return end


@contextlib.contextmanager
def two_hosts(between: Between) -> Iterator[tuple[list[Host], Link]]:
    """Two hosts and the link between them, for as long as the context lasts.

    Raises:
        OSError, subprocess.CalledProcessError: this machine or user can't have them.
    """
    with contextlib.ExitStack() as stack:
        hosts, ends = [], []
        for number, address in enumerate(ADDRESSES):
            # A device's name has up to 15 bytes.
            name = f"mgl{os.getpid()}-{number}"
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            # The descriptor stays open when the device moves to the namespace.
            ends.append(_open_tun(name))
            stack.callback(os.close, ends[-1])
            _ip("link", "set", name, "netns", name)
            within = ("-n", name)
            _ip(*within, "link", "set", name, "name", DEVICE)
            _ip(*within, "address", "add", f"{address}/24", "dev", DEVICE)
            for device in ("lo", DEVICE):
                _ip(*within, "link", "set", device, "up")
            hosts.append(Host(name, address))
        link = Link(ends, between)
        link.start()
        stack.callback(link.end)
        yield hosts, link


def start_training(
    hosts: Sequence[Host], n_processes: int, flags: dict[str, Any], log: Path
) -> list[subprocess.Popen[bytes]]:
    """Starts the documented command on each host, with so many processes."""
    words = [
        word
        for name, value in flags.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]
    return [
        host.start(
            [
                *(sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes", str(len(hosts)), "--node_rank", str(number)),
                *("--nproc_per_node", str(n_processes), "--master_addr", hosts[0].address),
                *("--master_port", str(PORT), "-m", "musicgen_lora.cli", "train", *words),
            ],
            log,
            ACCELERATE_USE_CPU="true",
            GLOO_SOCKET_IFNAME=DEVICE,
            OMP_NUM_THREADS="1",
        )
        for number, host in enumerate(hosts)
    ]


def end_all(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends launchers and their child processes, which have sessions of their own."""
    import psutil

    for launcher in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(launcher.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        launcher.kill()
        launcher.wait()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training.

    Args:
        rows: of its metrics, without times.
        weights: SHA-256 of the adapter.
        step_s: seconds per step, after the first.
        n_lost: packets that didn't arrive.
        n_sent_again: TCP segments that were retransmitted.
    """

    rows: list[dict[str, Any]]
    weights: str
    step_s: float
    n_lost: int
    n_sent_again: int

    def same_as(self, other: Outcome) -> bool:
        """Whether all figures and weights are equal to the bit."""
        return (self.rows, self.weights) == (other.rows, other.weights)


def train(n_hosts: int, n_processes: int, between: Between, flags: dict[str, Any]) -> Outcome:
    """Trains on one or two hosts.

    Args:
        n_hosts: number of hosts.
        n_processes: processes on each.
        between: the network between them.
        flags: of the training, including its folder.

    Raises:
        RuntimeError: it failed; with its output.
    """
    output, log = Path(flags["output_dir"]), Path(f"{flags['output_dir']}.log")
    with two_hosts(between) as (hosts, link):
        used = hosts[:n_hosts]
        started = start_training(used, n_processes, flags, log)
        try:
            codes = [one.wait() for one in started]
        finally:
            end_all(started)
        if any(codes):
            raise RuntimeError(log.read_text(encoding="utf-8"))
        again = sum(host.n_sent_again() for host in hosts)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    elapsed = [row["elapsed_s"] for row in rows if row["event"] == "train"]
    weights = (output / "best_model" / "adapter_model.safetensors").read_bytes()
    return Outcome(
        rows=[{k: v for k, v in row.items() if k not in TIMED} for row in rows],
        weights=hashlib.sha256(weights).hexdigest(),
        step_s=(elapsed[-1] - elapsed[0]) / (len(elapsed) - 1),
        n_lost=link.n_lost,
        n_sent_again=again,
    )


def main() -> None:
    from musicgen_lora.prepare.examples import create_examples

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2, help="on each host")
    parser.add_argument("--delay_ms", type=float, default=20.0, help="delay in each direction")
    parser.add_argument("--loss", type=float, default=0.01, help="share of lost packets")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--model_path", default="tiny-beats")
    options = parser.parse_args()
    if (reason := lacking()) is not None:
        sys.exit(f"two_hosts: {reason}.")
    far = Between(options.delay_ms / 1e3, options.loss)
    ways = {
        "one host": (1, 2 * options.processes, Between()),
        "two hosts": (2, options.processes, Between()),
        "two hosts, far apart": (2, options.processes, far),
    }
    first: Outcome | None = None
    with tempfile.TemporaryDirectory() as temporary:
        create_examples(Path(temporary) / "data", 10, duration_s=4.0)
        for name, (n_hosts, n_processes, between) in ways.items():
            flags = {
                "model_path": options.model_path,
                "data_dir": Path(temporary) / "data",
                "output_dir": Path(temporary) / name.replace(" ", "_"),
                "max_steps": options.steps,
                "batch_size": 4,
                "validation_fraction": 0.2,
                "previews": "off",
            }
            found = train(n_hosts, n_processes, between, flags)
            first = first or found
            losses = [row["loss"] for row in found.rows if row["event"] == "train"]
            print(
                f"{name} ({n_hosts} x {n_processes}): last loss {losses[-1]!r}, "
                f"{found.step_s:.2f} s a step, {found.n_lost} packets lost, "
                f"{found.n_sent_again} segments sent again; "
                f"equal to the first to the bit: {found.same_as(first)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
