"""What a user may rely on: bad images skipped and counted, exit codes, nothing leaked, no network, determinism."""

import errno
import getpass
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import killing
from command_lines import FLAGS, detect, edit, models, synthesize
from conftest import write_fields
from cytosynth.cli import main
from cytosynth.io import lock
from cytosynth.synthesis.jobs import identified, own_images
from cytosynth.synthesis.settings import PipelineSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """A folder of four images, three of which cannot be used: one no image, one cut short, one of a hostile name."""
    folder = tmp_path / "own"
    folder.mkdir()
    write_fields(tmp_path / "set", 2)
    shutil.copy(tmp_path / "set/images/field_0.png", folder / "good.png")
    (folder / "bad.png").write_bytes(b"no image")
    whole = (tmp_path / "set/images/field_0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    Path(os.fsdecode(os.fsencode(folder) + b"/[red]\x1b[2J\xff.png")).write_bytes(whole)
    return folder


skipping = pytest.mark.promise("One bad image stops nothing")


@skipping
def test_names_that_grow_too_long_and_files_that_cannot_be_opened_are_no_end(tmp_path: Path) -> None:
    deep = "/".join(["x" * 150, "y" * 150, "z.png"])
    (tmp_path / "closed.png").mkdir()
    jobs = list(own_images([(deep, tmp_path / "a.png", {}), (f"{deep}.png", tmp_path / "b.png", {}),
                            ("c.png", tmp_path / "closed.png", {})], PipelineSettings()))  # fmt: skip
    names = [job.file_name for job in jobs]
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 184
    assert names[2] == "c.png"
    assert identified(jobs[2]).extra["original_sha256"] == ""


@skipping
@pytest.mark.parametrize("subcommand", ["edit", "detect"])
def test_bad_images_are_skipped_named_and_counted(
    subcommand: str, cytosynth: killing.Server, tiny: Path, spoiled: Path, tmp_path: Path
) -> None:
    def command(out: Path) -> list[str]:
        if subcommand == "edit":
            return edit(tiny, spoiled, out)
        return ["detect", str(spoiled), str(out), "--detector", str(tiny / "detector"), "--threshold", "0.1"]

    ended = cytosynth.run(*command(tmp_path / "out"))
    assert ended.code == 4, ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("cytosynth: finished, but 3 images were skipped (")
    assert "\x1b" not in ended.err + ended.out
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["good.png"]
    assert len(content["info"]["skipped"]) == 3
    assert any("bad.png" in line and "not a readable image" in line for line in content["info"]["skipped"])
    assert any("cut.png" in line and "truncated" in line for line in content["info"]["skipped"])
    again = cytosynth.run(*command(tmp_path / "out"))
    assert again.code == 4, "as long as they are bad"
    strict = cytosynth.run(*command(tmp_path / "strict"), "--strict")
    assert strict.code == 1
    assert strict.err.splitlines()[-1].startswith("cytosynth: ")
    for path in [*spoiled.iterdir()]:
        if path.name != "good.png":
            path.unlink()
    assert cytosynth.run(*command(tmp_path / "strict"), "--strict").code == 0


@skipping
def test_a_bad_name_in_a_coco_set_is_skipped(cytosynth: killing.Server, tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "set", 1)
    content = json.loads((tmp_path / "set/annotations.json").read_text())
    content["images"].append({"id": 9, "file_name": "../../etc/passwd", "width": 5, "height": 5})
    (tmp_path / "set/annotations.json").write_text(json.dumps(content))
    ended = cytosynth.run(*edit(tiny, tmp_path / "set", tmp_path / "out"))
    assert ended.code == 4
    assert "1 image was skipped" in ended.err
    assert len(json.loads((tmp_path / "out/annotations.json").read_text())["images"]) == 1


errors = pytest.mark.promise("Errors")


@errors
@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["synthesize", "out", "--set", "nonsense=1"], 2, "unknown setting"),
        (["synthesize", "out", "--bogus"], 2, "No such option"),
        (["train", "normal", "run", "--set", "a: *b"], 2, "expected key=value"),
        (["train", "normal", "run", "--set", "rank=*b"], 2, "the value is not YAML"),
        (["convert", "nowhere", "out", "--to", "bogus", "--from", "coco"], 2, "cannot be written"),
        (["check", "nowhere"], 1, "no data set of a known format"),
        (["check", "nowhere", "--from", "cric"], 1, ""),
        (["edit", "nowhere", "out"], 1, "no such file or folder"),
        (["detect", "nowhere", "out"], 1, "no such file or folder"),
        (["synthesize", "out", "--foundation", "pickle.ckpt"], 1, "pickled weights can run code"),
        (["synthesize", "out", "--foundation", "nobody/nothing"], 3, "the hub cannot be reached"),
        (["check", "closed"], 1, "Not a directory"),
        (["synthesize", "closed/out", *FLAGS], 2, "closed is a file; a folder is expected"),
    ],
)
def test_one_line_and_an_exit_code_for_each_class_of_error(
    arguments: list[str], code: int, complaint: str, cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "closed").write_text("a file")
    if arguments[:2] == ["synthesize", "closed/out"]:
        arguments = [*arguments, *models(tiny, "foundation", "normal", "cell", "detector")]
    ended = cytosynth.run(*arguments, cwd=tmp_path)
    assert ended.code == code, ended.err
    assert complaint in ended.err + ended.out or complaint == "Not a directory", ended.err
    assert "Traceback" not in ended.err
    if "--bogus" not in arguments and ended.err:
        assert ended.err.startswith("cytosynth: ")
        assert ended.err.count("\n") == 1
    if code != 1 or arguments[0] != "check":
        shown = cytosynth.run("--debug", *arguments, cwd=tmp_path)
        assert shown.code == code
        assert ("Traceback" in shown.err) == ("--bogus" not in arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.promise("Errors")
@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 3, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 99 bytes"), 3,
         "not enough memory"),
        (SystemError("error return without exception set"), 3, "not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 3, "not enough memory"),
        (ImportError("x.so: failed to map segment"), 3, "a package is missing or damaged"),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), 3, "fewer --workers"),
        (KeyboardInterrupt(), 130, "stopped; the same command continues"),
    ],
)  # fmt: skip
def test_memory_dead_workers_and_interruption_end_in_one_line(
    raised: BaseException, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def broken(*_: object) -> None:
        raise raised

    monkeypatch.setattr("cytosynth.data.read.guess", broken)
    monkeypatch.setattr(sys, "argv", ["cytosynth", "convert", str(tmp_path), str(tmp_path / "out"), "--to", "yolo"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    found = capsys.readouterr().err
    assert said in found
    assert found.startswith("cytosynth: ")
    assert found.count("\n") == 1


@pytest.mark.promise("Errors")
@pytest.mark.parametrize("subcommand", ["synthesize", "edit", "detect", "train"])
@pytest.mark.slow
def test_memory_that_is_refused_ends_in_one_line(
    subcommand: str, cytosynth: killing.Server, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    """What was made is kept, and the same command continues where there is memory; no image is called a bad one."""
    write_fields(tmp_path / "real", 2)
    out = tmp_path / "out"
    changes = ("data=[{root: drawn}]", "max_steps=2", "batch_size=64", "size=128", "categories=[NILM, LSIL]")
    train = [flag for change in changes for flag in ("--set", change)]
    line = {
        "synthesize": [*synthesize(tiny, out, 2), "--set", "normal.size=512"],
        "edit": edit(tiny, tmp_path / "real", out),
        "detect": detect(tiny, tmp_path / "real", out),
        "train": ["train", "features", str(out), "--data-root", str(fields), *train],
    }[subcommand]  # fmt: skip
    refused = 0
    for megabytes in (4, 8, 16, 32):
        ended = cytosynth.run(*line, memory=megabytes << 20)
        refused += killing.out_of_memory(ended)
        assert not re.search(r"[1-9]\d* images? (was|were )?skipped", ended.err)
    assert refused
    if subcommand != "train":
        assert cytosynth.run(*line).code == 0


@pytest.mark.promise("Errors")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_sigterm_ends_a_run_as_ctrl_c_does(sent: signal.Signals, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "cytosynth", *synthesize(tiny, out, 500)]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # children of who ignores it ignore it too
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, heard)
    deadline = time.monotonic() + 120
    while not list(out.glob("images/*.png")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(sent)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 130
    assert said.splitlines()[-1] == "cytosynth: stopped; the same command continues"
    assert "Traceback" not in said
    assert not (out / ".lock").exists()


leaks = pytest.mark.promise("Nothing leaks")


def secrets(*places: Path) -> list[str]:
    """Return what no output file may hold: folders of this machine, its user, its name."""
    user = getpass.getuser()
    found = {str(ROOT), str(Path.home()), platform.node(), socket.gethostname(), *map(str, places)}
    found |= {user} if user not in ("root", "user") else set()  # words that stand in files for other reasons
    return [secret for secret in found if len(secret) > 3]


def leaky(folder: Path, *places: Path) -> list[str]:
    """Return the files below `folder` that tell where or by whom they were made, by name or content."""
    said = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            for secret in secrets(*places):
                if secret.encode() in content or secret in path.relative_to(folder).as_posix():
                    said.append(f"{path.relative_to(folder)}: {secret}")
    return said


@leaks
@pytest.mark.parametrize("subcommand", ["edit", "detect"])
@pytest.mark.parametrize("coco", [True, False])
def test_what_was_skipped_is_named_without_its_folder(
    subcommand: str, coco: bool, cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_fields(place, 1)
    Image.new("RGB", (300, 300)).save(tmp_path / "outside.png")
    (place / "images/link.png").symlink_to(tmp_path / "outside.png")
    expected = {"link.png: is a link that leaves its folder"}
    if coco:
        content = json.loads((place / "annotations.json").read_text())
        names = ["link.png", "../../etc/passwd", f"{tmp_path}/a.png", "C:\\Users\\me\\b.png"]
        content["images"] += [content["images"][0] | {"id": 9 + n, "file_name": name} for n, name in enumerate(names)]
        (place / "annotations.json").write_text(json.dumps(content))
        expected |= {"file name '../../etc/passwd': leaves its folder", "file name 'a.png': absolute",
                     "file name 'b.png': with a backslash or a drive letter"}  # fmt: skip
    source, out = place if coco else place / "images", tmp_path / "out"
    command = ["detect", str(source), str(out), "--detector", str(tiny / "detector"), "--threshold", "0.1"]
    ended = cytosynth.run(*(command if subcommand == "detect" else edit(tiny, source, out)))
    assert ended.code == 4, ended.err
    info = json.loads((out / "annotations.json").read_text())["info"]
    assert set(info["skipped"]) == expected
    if subcommand == "detect":
        assert info["images"] == ("caf\\udce9" if coco else "images")
    assert leaky(out, tmp_path) == []


@leaks
@pytest.mark.slow
def test_no_output_says_where_or_by_whom_it_was_made(
    cytosynth: killing.Server, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    base = tmp_path / "somebody's place"
    base.mkdir()
    shutil.copytree(tiny, base / "models")
    shutil.copytree(fields / "drawn", base / "data/drawn")
    (base / "data/drawn/images/broken.png").write_bytes(b"x")
    kept = base / "models"
    out = tmp_path / "results"
    source = "data=[{root: %s}]" % (base / "data/drawn")
    foundation = f"foundation={kept / 'foundation'}"
    small = ["--set", source, "--set", "max_steps=2", "--set", "preview_every=1", "--set", "log_every=1"]
    sd = ["--foundation", str(kept / "foundation")]
    commands = [
        synthesize(kept, out / "made", 1),
        edit(kept, base / "data/drawn/images", out / "edited"),
        ["detect", str(base / "data/drawn/images"), str(out / "found"), "--detector", str(kept / "detector")],
        ["convert", str(base / "data/drawn"), str(out / "yolo"), "--to", "yolo"],
        ["train", "normal", str(out / "run"), "--preset", "bundled", *small, "--set", foundation, "--set", "window=64",
         "--set", "tensorboard=true", "--set", "batch_size=1", "--set", "validate_every=0"],
        ["train", "cell", str(out / "cell"), "--preset", "bundled", *small, "--set", foundation, "--set",
         "batch_size=1", "--set", "validate_every=0", "--set", "variants=1"],
        ["train", "features", str(out / "features"), *small, "--set", "size=32", "--set", "batch_size=2", "--set",
         "categories=[NILM, LSIL]"],
        ["experiment", "figure3", str(out / "figure3"), "--data", str(base / "data/drawn"), "--split", "all", "--scale",
         "1", "--window", "64", *sd],
        ["experiment", "figure7", str(out / "figure7"), "--image", str(base / "data/drawn/images/field_0.png"), *sd,
         "--cell", str(kept / "cell"), "--set", "cell.steps=1", "--box", "90,90,130,130", "--box", "100,20,140,60",
         "--box", "20,100,60,140"],
        [*edit(kept, base / "data/drawn/images", out / "gated"), "--gate", str(out / "features/weights"),
         "--set", "category_weights={LSIL: 1}", "--set", "gate.reference=[{root: %s}]" % (base / "data/drawn")],
        ["train", "foundation", str(out / "foundation"), "--part", "decoder", *small, "--set", "batch_size=1",
         "--set", "crops=[64]", "--set", "discriminator_channels=8"],
    ]  # fmt: skip
    shutil.copytree(kept / "foundation/vae", out / "foundation/autoencoder/weights")
    for command in commands:
        ended = cytosynth.run(*command)
        assert ended.code in (0, 4), (command, ended.err)
    assert len(list(out.rglob("*"))) > 60
    assert list((out / "run/tensorboard").iterdir()), "its file names would hold the host's"
    assert leaky(out, base, tmp_path) == []


@leaks
@pytest.mark.slow
def test_no_network_and_no_telemetry(tiny: Path, fields: Path, tmp_path: Path) -> None:
    """Run the pipeline and a training while every call out is noted, without HF_HUB_OFFLINE."""
    import subprocess
    import sys

    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "calls = []\n"
        "def hook(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto', 'urllib.Request'):\n"
        "        calls.append((event, arguments[:2]))\n"
        "        raise ConnectionError('the network is closed')\n"
        "sys.addaudithook(hook)\n"
        "from cytosynth.cli import main\n"
        "import huggingface_hub.constants as hub\n"
        "assert hub.HF_HUB_DISABLE_TELEMETRY and not hub.HF_HUB_OFFLINE\n"
        "import json\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['cytosynth', *command]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, end.code\n"
        "assert not calls, calls\n"
        "from cytosynth.foundation.load import load\n"
        "from cytosynth.errors import EnvironmentProblem\n"
        "try:\n"
        "    load('nobody/nothing')\n"
        "except EnvironmentProblem:\n"
        "    pass\n"
        "assert calls, 'a hub id alone asks the network'\n"
    )
    train = ["train", "normal", str(tmp_path / "run"), "--data-root", str(fields), "--set",
             "data=[{root: drawn}]", "--set", "max_steps=1", "--set", "window=64", "--set",
             f"foundation={tiny / 'foundation'}"]  # fmt: skip
    commands = [synthesize(tiny, tmp_path / "out", 1), edit(tiny, fields / "drawn", tmp_path / "edited"), train]
    if find_spec("openvino"):
        commands.append([*synthesize(tiny, tmp_path / "openvino", 1), "--engine", "openvino", "--precision", "fp32"])
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "0", "HF_HOME": str(tmp_path / "hub")}
    run = subprocess.run([sys.executable, str(program), json.dumps(commands)], capture_output=True, text=True,
                         env=environment, cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]


determinism = pytest.mark.promise("Determinism")


@determinism
def test_bit_equal_on_the_same_threads_and_close_on_others(tiny: Path) -> None:
    from cytosynth.normal.generate import NormalImageGenerator
    from cytosynth.normal.settings import GenerateSettings

    threads = torch.get_num_threads()
    generator = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"))
    settings = GenerateSettings(size=256, steps=3)
    try:
        torch.set_num_threads(1)
        first, again = generator.field(3, 0, settings), generator.field(3, 0, settings)
        torch.set_num_threads(4)
        other = generator.field(3, 0, settings)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - other).max() <= 1, "a grey level, from sums in another order"


@determinism
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: the tolerance across devices is not measured")
def test_close_across_devices(tiny: Path) -> None:
    from cytosynth.normal.generate import NormalImageGenerator
    from cytosynth.normal.settings import GenerateSettings

    settings = GenerateSettings(size=256, steps=3)
    fields = [NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"), device).field(3, 0, settings)
              for device in ("cpu", "cuda")]  # fmt: skip
    assert np.abs(fields[0].astype(int) - fields[1]).max() <= 2


@pytest.mark.promise("Two runs into one folder")
def test_a_finished_run_leaves_no_lock(tmp_path: Path) -> None:
    with lock.only(tmp_path / "a"), lock.new(tmp_path / "b"):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".b.lock", "a"]
    assert list((tmp_path / "a").iterdir()) == []
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
