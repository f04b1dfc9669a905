"""An option that would change nothing is refused in one line, before models are loaded."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import write_fields
from cytosynth.cli import app, data, detect, robustness, slide, studio, synthesize  # noqa: F401
from cytosynth.data import streaming
from cytosynth.errors import UsageError


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set `set`, the same packed, and a file that is called like a slide, in the working folder."""
    write_fields(tmp_path / "set", 2)
    streaming.convert(tmp_path / "set", tmp_path / "packed", None, "parquet")
    (tmp_path / "own.svs").touch()
    monkeypatch.chdir(tmp_path)


SLIDE = "edit own.svs out --counts HSIL=1"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{SLIDE} --label normal", "own.svs: is a slide, brought to x20 whole; leave --label out"),
        (f"{SLIDE} --split test", "leave --split out"),
        (f"{SLIDE} --limit 3", "leave --limit out"),
        (f"{SLIDE} --scale 0.5", "leave --scale out"),
        (f"{SLIDE} --images set", "leave --images out"),
        (f"{SLIDE} --annotations set", "leave --annotations out"),
        (f"{SLIDE} --recursive", "leave --recursive out"),
        ("edit set out --mpp 0.25", "set: no slide; images are brought to x20 by --scale; leave --mpp out"),
        ("detect set out --mpp 0.25", "leave --mpp out"),
        ("edit set out --tries 5", "leave --tries out"),
        ("synthesize out --tries 5", "leave --tries out"),
        ("slide out --counts HSIL=1 --tries 5", "leave --tries out"),
        ("slide out --gate nucleus", "no cell is edited without --counts or --plan; leave --gate out"),
        (
            'slide out --set vary={"mpp":0.49,"variations":[{"name":"jpeg","share":1,"strength":[1,2]}]}',
            "vary, style: work on images, not on a slide",
        ),
        ("convert set out --to parquet --box-side 40", "--box-side does not work on packed data sets"),
        ("convert set out --to parquet --key k", "--key k: needs --pseudonymise"),
        ("convert packed out --to coco --images set", "leave --annotations, --images and --recursive out"),
        ("convert packed out --to coco --from yolo", "packed: is parquet, not yolo; leave --from out"),
        ("check packed --from yolo", "packed: is parquet, not yolo; leave --from out"),
        ("check packed --annotations set", "leave --annotations, --images and --recursive out"),
        ("studio --set compiled=true", "the studio compiles no networks"),
        ("studio --set engine=openvino", "the studio computes with PyTorch"),
        ("evaluate controlled a/weights --also b/weights --output out", "two detectors are called 'weights'"),
    ],
)
def test_an_option_without_effect_is_refused(line: str, says: str, there: None) -> None:
    ended = CliRunner().invoke(app, line.split())
    assert isinstance(ended.exception, UsageError), (ended.output, ended.exception)
    assert says in str(ended.exception) and not Path("out").exists()
