"""A server that forks the command line from a process in which everything is imported, and kills what it forked.

So a run of `cytosynth` costs its own work, not ten seconds of imports, and can be killed at a chosen moment: after some
seconds, or at its n-th change of the disk below a folder.
"""

import contextlib
import hashlib
import importlib
import json
import os
import pkgutil
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree", "os.link", "os.symlink")


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit code (-9 when killed), wall seconds, standard output and error, changes of the disk."""

    code: int
    seconds: float
    out: str
    err: str
    changes: int


def out_of_memory(ended: Ended) -> bool:
    """Return whether memory was refused to what `ended`; fail where that is not said in one line, or said wrongly."""
    if ended.code <= 0:  # done; or a library below Python did not look at what it was given, and died
        return False
    assert ended.code == 3, ended.err
    assert ended.err.splitlines()[-1].count("not enough memory") == 1, ended.err
    assert "Traceback" not in ended.err
    return True


def _environment() -> dict[str, str]:
    """Return the environment of a server: one thread, no hub, no GPU."""
    return os.environ | {
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",  # a forked process cannot use what its parent has begun to
    }  # fmt: skip


class Server:
    """Runs `cytosynth` in forked processes; `close` it at the end."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )

    def run(self, *arguments: str | Path, after: float | None = None, at: int | None = None, below: Path | None = None,
            batches: Path | None = None, cwd: Path | None = None, memory: int | None = None) -> Ended:  # fmt: skip
        """Run `cytosynth *arguments`.

        Args:
            after: kill it after so many seconds.
            at: it kills itself before its change number `at` (from 1) of the disk below `below`; counted without it.
            below: see `at`.
            batches: file that gets the hash of every training batch.
            cwd: working folder.
            memory: bytes that it may ask for, beyond those it begins with.
        """
        with tempfile.TemporaryDirectory() as scratch:
            given = {"arguments": [str(a) for a in arguments], "after": after, "at": at, "below": str(below or ""),
                     "batches": str(batches or ""), "scratch": scratch, "cwd": str(cwd or scratch),
                     "memory": memory}  # fmt: skip
            assert self.process.stdin and self.process.stdout
            self.process.stdin.write(json.dumps(given) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            assert answer, "the server died"
            return Ended(**json.loads(answer))

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Yield a server that is closed at the end."""
    made = Server()
    try:
        yield made
    finally:
        made.close()


def content(folder: Path, but: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the files below `folder` by name, except those whose name begins with one of `but`."""
    names = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(tuple(but))}


CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({place!r})
    socket.send_fds(line, [json.dumps([os.getcwd(), *sys.argv[1:]]).encode()], [0, 1, 2])
    sys.exit(int(line.recv(16)))
"""


@contextlib.contextmanager
def program(folder: Path) -> Iterator[str]:
    """Yield the command of a program that is `cytosynth`, but for the time that imports take; `folder` gets its files.

    For scripts that run many commands one after the other.
    """
    place = str(folder / "socket")
    (folder / "client.py").write_text(CLIENT.format(place=place))
    server = subprocess.Popen([sys.executable, __file__, place], stdout=subprocess.PIPE, env=_environment())
    try:
        assert server.stdout
        assert server.stdout.readline() == b"ready\n", "the server died"
        yield f"{sys.executable} -S {folder / 'client.py'}"
    finally:
        server.kill()
        server.wait()


def _listen(place: str) -> None:
    """Run each command that a client sends, in its folder, with its streams; answer with the exit code."""
    _import()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        print("ready", flush=True)
        while True:
            line, _ = server.accept()
            with line:
                content, streams, _, _ = socket.recv_fds(line, 1 << 16, 3)
                child = os.fork()
                if not child:
                    folder, *arguments = json.loads(content)
                    os.chdir(folder)
                    for number, stream in enumerate(streams):
                        os.dup2(stream, number)
                    _main(arguments)
                for stream in streams:
                    os.close(stream)
                _, status = os.waitpid(child, 0)
                line.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _import() -> None:
    """Import all that commands need."""
    import cytosynth.adapters.load
    import cytosynth.cell.train
    import cytosynth.cli
    import cytosynth.detection.train
    import cytosynth.foundation.scratch.train
    import cytosynth.normal.train
    import cytosynth.synthesis.synthesize

    for subcommand in pkgutil.iter_modules(cytosynth.cli.__path__):
        importlib.import_module(f"cytosynth.cli.{subcommand.name}")


def _serve() -> None:
    _import()
    for line in sys.stdin:
        given = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if not child:
            _child(given)
        code = _wait(child, given["after"])
        scratch = Path(given["scratch"])
        changes = scratch / "changes"
        answer = {
            "code": code, "seconds": time.monotonic() - started,
            "out": (scratch / "out").read_text(errors="replace"), "err": (scratch / "err").read_text(errors="replace"),
            "changes": changes.stat().st_size if changes.exists() else 0,
        }  # fmt: skip
        print(json.dumps(answer), flush=True)


def _wait(child: int, after: float | None) -> int:
    deadline = time.monotonic() + after if after is not None else None
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            deadline = None
        time.sleep(0.0005 if deadline is not None else 0.005)


def _child(given: dict[str, Any]) -> None:
    os.chdir(given["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(Path(given["scratch"]) / name, os.O_WRONLY | os.O_CREAT), number)
    if given["memory"]:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (asked_for() + given["memory"], hard))
    if given["below"]:
        _watch(Path(given["below"]), given["at"], Path(given["scratch"]) / "changes")
    if given["batches"]:
        _note_batches(Path(given["batches"]))
    _main(given["arguments"])


def _main(arguments: Sequence[str]) -> None:
    """Run the command line with `arguments`, and end this process with its exit code."""
    sys.argv = ["cytosynth", *arguments]
    code = 70
    try:
        from cytosynth.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        if sys.exc_info()[0] is not None and code == 70:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def asked_for() -> int:
    """Return the bytes of memory that this process has asked for, be they in use or not."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")]
    return int(line.split()[1]) << 10


def _watch(below: Path, at: int | None, tally: Path) -> None:
    """Count the changes of the disk below `below`, and die before number `at`."""
    count = 0
    log = os.open(tally, os.O_WRONLY | os.O_CREAT)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            changing = isinstance(arguments[0], str | bytes) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        else:
            changing = event in CHANGES
        if changing and str(arguments[0]).startswith(str(below)):
            count += 1
            os.write(log, b".")
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _note_batches(path: Path) -> None:
    """Write (seed, rank, step, micro-step) and the hash of every batch that the training loop takes."""
    import torch

    from cytosynth.training import batches

    seeded, moved = batches.seeded, batches.moved
    place: list[tuple[int, ...]] = []

    def seed(*numbers: int) -> Any:
        place.append(numbers)
        return seeded(*numbers)

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return hashlib.sha256(
                value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            ).hexdigest()
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list | tuple) else repr(value)

    def note(batch: Any, device: Any) -> Any:
        with path.open("a") as file:
            file.write(json.dumps([*place[-1], plain(dict(batch))]) + "\n")
        return moved(batch, device)

    batches.seeded, batches.moved = seed, note


if __name__ == "__main__":
    _listen(sys.argv[1]) if len(sys.argv) > 1 else _serve()
