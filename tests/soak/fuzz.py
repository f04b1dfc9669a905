"""Coverage-guided fuzzing of one reader with atheris, or without it where it is not installed.

`python tests/soak/fuzz.py READER CASES SANDBOX`: prints how many cases were tried; ends otherwise than with 0 on an
exception that is no UserError, on a case of more than ten seconds, on more than a gigabyte, on a touch outside.
"""

import random
import resource
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
GIB = 1024**3
SECONDS = 10
LONGEST = 60_000
"""Bytes of a mutated file."""


def main() -> None:
    """Run the fuzzer that the command line asks for."""
    name, cases, sandbox = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if not find_spec("atheris"):
        _plain(name, cases, sandbox)
        return
    import atheris

    with atheris.instrument_imports(include=["cytosynth", "yaml", "defusedxml"]):
        import nasty

        reader = nasty.reader(name)
    for seed in reader.seeds:
        reader.run(seed, sandbox)
    tried = 0

    def one(data: bytes) -> None:
        nonlocal tried
        tried += 1
        with nasty.watch(sandbox):
            reader.run(data, sandbox)
        if tried == cases:
            print(f"cases {tried} engine atheris", flush=True)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        new = reader.mutate(rng, data) if rng.random() < 0.7 else atheris.Mutate(data, size)
        return bytes(new[:size])

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(reader.seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        options = [f"-runs={cases + len(reader.seeds) + 2}", f"-rss_limit_mb={base + 1024}", f"-timeout={SECONDS}",
                   f"-max_len={LONGEST}", "-seed=1", "-len_control=0",
                   f"-artifact_prefix={sandbox}/found-"]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, corpus], one, custom_mutator=mutate)
        atheris.Fuzz()


def _plain(name: str, cases: int, sandbox: Path) -> None:
    """Mutate whole files, and now and then what was mutated before."""
    import nasty

    reader = nasty.reader(name)
    for seed in reader.seeds:
        reader.run(seed, sandbox)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pool, rng = list(reader.seeds), random.Random(1)
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("a case took too long"))
    for _ in range(cases):
        data = reader.mutate(rng, rng.choice(pool))[:LONGEST]
        signal.alarm(SECONDS)
        with nasty.watch(sandbox):
            reader.run(data, sandbox)
        signal.alarm(0)
        if rng.random() < 0.05:
            pool = [*reader.seeds, *pool[len(reader.seeds) :][-50:], data]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - base
    if grown > GIB:
        sys.exit(f"{grown / GIB:.1f} GiB more than before")
    print(f"cases {cases} engine mutation", flush=True)


if __name__ == "__main__":
    main()
