"""The whole command on a network of the user's own: what comes out, what is reused, and what bad days leave behind."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from conftest import SIZE, TinyNetwork
from edge import fingerprint, pipeline, reuse, targets
from edge.errors import EdgeError, ExitCode, ExportError, InputError, UsageError
from edge.formats import FORMATS, Converter, Format
from edge.manifest import Manifest
from edge.progress import Reporter
from edge.request import Request, Unit
from edge.toolchains import environments
from edge.toolchains.places import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tiny: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network as a user would bring it."""
    return Path(shutil.copy(tiny.program, tmp_path_factory.mktemp("own") / "tiny.pt2"))


def request_for(program: Path, out: Path, *formats: str, **options) -> Request:
    return Request(str(program), targets.load("cortex-a72"), formats or ("coreml",), ("fp32",), out=out, **options)


def run(request: Request) -> Manifest:
    return pipeline.export(request, Reporter(Console(file=io.StringIO())))


@pytest.fixture(scope="module")
def made(program: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """One finished export, for the tests that only look."""
    out = tmp_path_factory.mktemp("dist")
    return out, run(request_for(program, out))


@pytest.fixture
def dist(made: tuple[Path, Manifest], tmp_path: Path) -> Path:
    """A copy of it, for the tests that break things."""
    return Path(shutil.copytree(made[0], tmp_path / "dist"))


def faulty(monkeypatch: pytest.MonkeyPatch, name: str, limit_s: int = 60, environment: str = "base") -> str:
    """Put a faulty exporter into the table of formats."""
    converter = Converter(f"tests.faulty.{name}", environment)
    format = Format(name, name, "nothing", {"fp32": "", "int8": ""}, {"only": converter}, limit_s=limit_s)
    monkeypatch.setitem(FORMATS, name, format)
    return name


def leftovers(out: Path) -> list[str]:
    return [path.name for path in (out / "cortex-a72").iterdir() if path.name.startswith(".")]


class Watching(Reporter):
    """Notes how many bytes of weights the process holds at each note."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.held: dict[str, int] = {}

    def note(self, text: str) -> None:
        super().note(text)
        gc.collect()
        tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
        self.held[text.strip().partition(":")[0]] = sum(storages.values())


def test_the_network_is_not_held_while_exporters_work(program: Path, tmp_path: Path) -> None:
    """Of a large one that would be gigabytes beside theirs."""
    watching = Watching()
    pipeline.export(request_for(program, tmp_path), watching)
    weights = sum(each.nbytes for each in torch.export.load(program).state_dict.values())
    at_first, lowering, working = (watching.held[at] for at in ("define tiny", "lower", "tiny.fp32.mlpackage on host"))
    assert lowering >= at_first + weights
    assert working < at_first + weights / 2


def test_what_comes_out(made: tuple[Path, Manifest]):
    out, manifest = made
    folder = out / "cortex-a72" / "tiny"
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "report.html", "tiny.fp32.mlpackage", "vectors"}
    assert json.loads((folder / "manifest.json").read_text()) == json.loads(json.dumps(manifest))
    (artifact,) = manifest["artifacts"]
    assert artifact["sha256"] == fingerprint.file_digest(folder / artifact["file"])
    (check,) = artifact["checks"]
    assert check["status"] == "passed"
    assert check["sqnr_db"] >= 100
    assert check["top1"] == 1.0
    names = {rewrite["name"] for rewrite in manifest["rewrites"] if rewrite["matches"]}
    assert names == {"reshape_views", "fold_batch_norm_backward", "partial_convolution"}
    assert all(rewrite["proof_db"] >= 250 for rewrite in manifest["rewrites"] if rewrite["matches"])
    assert len(manifest["weights"]["digest"]) == len(manifest["calibration"]["digest"]) == 64
    assert pipeline.exit_code(manifest, require=True) is ExitCode.OK


def test_a_second_run_does_nothing_and_says_the_same(program: Path, dist: Path, made: tuple[Path, Manifest]):
    artifact = dist / "cortex-a72" / "tiny" / "tiny.fp32.mlpackage"
    before = artifact.stat().st_ino
    begin = time.monotonic()
    assert run(request_for(program, dist)) == json.loads(json.dumps(made[1]))
    assert time.monotonic() - begin < 3
    assert artifact.stat().st_ino == before


def test_a_tampered_artifact_is_made_again(program: Path, dist: Path, made: tuple[Path, Manifest]):
    weights = next((dist / "cortex-a72" / "tiny").rglob("weight.bin"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0x40
    weights.write_bytes(data)
    manifest = run(request_for(program, dist))
    assert manifest["artifacts"][0]["sha256"] == made[1]["artifacts"][0]["sha256"]
    assert fingerprint.file_digest(weights.parents[3]) == manifest["artifacts"][0]["sha256"]


@pytest.mark.parametrize("what", ["weights", "code", "lock", "calibration"])
def test_a_stale_artifact_is_made_again(
    what: str, program: Path, dist: Path, made: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whatever decides the result decides whether it may be reused."""
    request = request_for(program, dist)
    if what == "weights":
        changed = torch.export.load(program)
        with torch.no_grad():
            next(iter(changed.state_dict.values())).mul_(1.001)
        torch.export.save(changed, tmp_path / "tiny.pt2")
        request = request_for(tmp_path / "tiny.pt2", dist)
    elif what == "code":
        monkeypatch.setattr(fingerprint, "source_digest", lambda: "other code")
    elif what == "lock":
        monkeypatch.setattr(fingerprint, "lock_digest", lambda name: "other versions")
    else:
        images = tmp_path / "images"
        images.mkdir()
        samples = np.random.default_rng(0).standard_normal((8, 3, SIZE, SIZE)).astype(np.float32)
        for index, sample in enumerate(samples):
            np.save(images / f"{index}.npy", sample)
        request = request_for(program, dist, calibration=images)
    manifest = run(request)
    assert manifest["artifacts"][0]["key"] != made[1]["artifacts"][0]["key"]


def test_another_format_joins_what_stands(
    program: Path, dist: Path, made: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
):
    manifest = run(request_for(program, dist, faulty(monkeypatch, "raises")))
    assert [a["format"] for a in manifest["artifacts"]] == ["raises", "coreml"]
    assert manifest["artifacts"][1] == json.loads(json.dumps(made[1]["artifacts"][0]))
    assert (dist / "cortex-a72" / "tiny" / "tiny.fp32.mlpackage").is_dir()


def test_a_crash_and_a_hang_are_rows_and_the_rest_goes_on(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    formats = (faulty(monkeypatch, "dies"), faulty(monkeypatch, "hangs", limit_s=2), "coreml")
    request = Request(str(program), targets.load("cortex-a72"), formats, ("int8", "fp32"), out=tmp_path)
    manifest = run(request)
    rows = {(a["format"], a["precision"]): a["checks"][0] for a in manifest["artifacts"]}
    assert rows["dies", "int8"]["status"] == "failed"
    assert "SIGSEGV" in rows["dies", "int8"]["reason"]
    assert "limit of 2 s" in rows["hangs", "fp32"]["reason"]
    assert rows["coreml", "fp32"]["status"] == rows["coreml", "int8"]["status"] == "passed"
    page = (request.folder / "report.html").read_text()
    assert "SIGSEGV" in page
    assert pipeline.exit_code(manifest, require=False) is ExitCode.PARITY  # what "dies" emitted first is no model
    assert leftovers(tmp_path) == []


def test_a_failed_exporter_has_its_own_exit_code(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    manifest = run(request_for(program, tmp_path, faulty(monkeypatch, "raises"), "coreml"))
    assert pipeline.exit_code(manifest, require=False) is ExitCode.EXPORT


def test_an_environment_that_cannot_be_made_is_a_skip(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """pip really runs, and really finds no such package."""
    lock = tmp_path / "unobtainable.lock"
    lock.write_text("edge-no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    shutil.copytree(environments.REQUIREMENTS, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "environments")
    name = faulty(monkeypatch, "dies", environment="unobtainable")
    manifest = run(request_for(program, tmp_path / "dist", name, "coreml"))
    assert manifest["artifacts"][0]["checks"][0]["status"] == "skipped"
    assert "edge-no-such-package" in manifest["artifacts"][0]["checks"][0]["reason"]
    assert manifest["artifacts"][1]["checks"][0]["status"] == "passed"
    assert pipeline.exit_code(manifest, require=False) is ExitCode.OK
    assert pipeline.exit_code(manifest, require=True) is ExitCode.EXPORT


@pytest.mark.parametrize("fault", ["swaps_channels", "wrong_gelu", "forgets_a_bias"])
def test_a_wrong_artifact_fails_its_gate(fault: str, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A real exporter, a real file, a real evaluation; only the program it was given is wrong."""
    manifest = run(request_for(program, tmp_path, faulty(monkeypatch, fault)))
    (check,) = manifest["artifacts"][0]["checks"]
    assert check["status"] == "failed"
    assert "SQNR" in check["reason"]
    assert pipeline.exit_code(manifest, require=False) is ExitCode.PARITY


def test_bad_input_leaves_the_old_artifacts_alone(program: Path, dist: Path):
    garbage = program.with_name("broken") / "tiny.pt2"
    garbage.parent.mkdir(exist_ok=True)
    garbage.write_bytes(program.read_bytes()[:1000])
    before = {p: p.stat().st_mtime_ns for p in dist.rglob("*")}
    with pytest.raises(InputError, match="not a saved ExportedProgram"):
        run(request_for(garbage, dist))
    assert {p: p.stat().st_mtime_ns for p in (dist / "cortex-a72" / "tiny").rglob("*")}.items() <= before.items()
    assert leftovers(dist) == []


def test_an_output_folder_that_cannot_be_written_is_one_message(program: Path, tmp_path: Path):
    blocked = tmp_path / "a file"
    blocked.touch()
    with pytest.raises(ExportError, match="could not write") as caught:
        run(request_for(program, blocked))
    assert "disk has room" in caught.value.next_step


def test_two_runs_at_once_both_finish_right(program: Path, tmp_path: Path):
    command = [sys.executable, "-m", "edge", "export", str(program), "--target", "cortex-a72", "--formats", "coreml"]
    options = ["--precisions", "fp32", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    runs = [
        subprocess.Popen([*command, *options], env=environment, text=True, stderr=subprocess.PIPE) for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in runs]
    assert [process.returncode for process in runs] == [0, 0]
    assert sum("waiting for another run" in text for text in said) == 1
    assert sum("nothing has changed" in text for text in said) == 1
    assert leftovers(tmp_path) == []


HANGING = """
from edge.cli import main
from edge.formats import FORMATS, Converter, Format
FORMATS["hangs"] = Format("hangs", "hangs", "nothing", {"fp32": ""}, {"only": Converter("tests.faulty.hangs", "base")})
main()
"""


def hanging_run(program: Path, out: Path, formats: str = "hangs") -> subprocess.Popen[str]:
    """The command as a process, waiting for an exporter that never ends; one format after the other, this one last."""
    options = ["export", str(program), "--target", "cortex-a72", "--formats", formats, "--out", str(out)]
    options += ["--precisions", "fp32", "--jobs", "1"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, *options], env=environment, text=True, stderr=subprocess.PIPE
    )
    pid_file = out / "cortex-a72" / ".tiny.work" / "hangs" / "child.pid"
    deadline = time.monotonic() + 120
    while not pid_file.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return process


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_the_old_folder_and_nothing_else(asked: signal.Signals, program: Path, dist: Path):
    folder = dist / "cortex-a72" / "tiny"
    before = fingerprint.file_digest(folder)
    process = hanging_run(program, dist)
    process.send_signal(asked)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in stderr
    assert fingerprint.file_digest(folder) == before
    assert leftovers(dist) == []


def test_a_killed_run_is_swept_by_the_next_and_its_workers_go(program: Path, dist: Path, made: tuple[Path, Manifest]):
    process = hanging_run(program, dist)
    process.kill()
    process.communicate(timeout=30)
    assert leftovers(dist) != []
    assert run(request_for(program, dist)) == json.loads(json.dumps(made[1]))
    assert leftovers(dist) == []


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGKILL])
def test_what_an_interrupted_run_had_finished_is_not_made_again(asked: signal.Signals, program: Path, tmp_path: Path):
    process = hanging_run(program, tmp_path, "coreml,hangs")
    process.send_signal(asked)
    _, stderr = process.communicate(timeout=30)
    assert asked is signal.SIGKILL or "what was finished by then is kept" in stderr
    hidden = tmp_path / "cortex-a72" / (".tiny.new" if asked is signal.SIGKILL else ".tiny.unfinished")
    made = {path: path.stat().st_mtime_ns for path in (hidden / "tiny.fp32.mlpackage").rglob("*.*")}
    assert made and not (tmp_path / "cortex-a72" / "tiny").exists()

    console = io.StringIO()
    manifest = pipeline.export(request_for(program, tmp_path), Reporter(Console(file=console)))
    assert "finished by a run that was interrupted: Core ML fp32" in console.getvalue()
    assert "emitted" not in console.getvalue()
    folder = tmp_path / "cortex-a72" / "tiny"
    assert {path: path.stat().st_mtime_ns for path in (folder / "tiny.fp32.mlpackage").rglob("*.*")} == {
        folder / path.relative_to(hidden): at for path, at in made.items()
    }
    assert manifest["artifacts"][0]["checks"][0]["status"] == "passed"
    assert leftovers(tmp_path) == []


def test_what_was_changed_since_the_interruption_is_made_again(program: Path, tmp_path: Path):
    process = hanging_run(program, tmp_path, "coreml,hangs")
    process.terminate()
    process.communicate(timeout=30)
    next((tmp_path / "cortex-a72" / ".tiny.unfinished").rglob("weight.bin")).write_bytes(b"")
    console = io.StringIO()
    manifest = pipeline.export(request_for(program, tmp_path), Reporter(Console(file=console)))
    assert "interrupted" not in console.getvalue()
    assert manifest["artifacts"][0]["checks"][0]["status"] == "passed"
    assert leftovers(tmp_path) == []


def test_one_file_made_in_two_ways_stands_once():
    """A run with the other converter was interrupted: its file may not lie under the finished run's entry."""
    format = FORMATS["tflite"]
    ours, other = (Unit(format, name, "int8") for name in format.converters)
    finished = {ours: reuse.Standing(Path("finished"), [])}
    unfinished = {
        other: reuse.Standing(Path("unfinished"), []),
        replace(other, precision="fp32"): reuse.Standing(Path("unfinished"), []),
    }
    neither = Request("fasternet_t0", targets.load("cortex-a72"), ("tvm",)).units
    assert set(reuse.beside(reuse.joined(finished, unfinished, neither), neither)) == {
        ours,
        replace(other, precision="fp32"),
    }
    assert reuse.joined(finished, unfinished, (other,))[other] is unfinished[other]
    assert other not in reuse.joined(finished, unfinished, (ours,))


def test_a_run_killed_between_the_two_renames_is_mended(program: Path, dist: Path, made: tuple[Path, Manifest]):
    folder = dist / "cortex-a72" / "tiny"
    folder.rename(folder.with_name(".tiny.old"))
    assert run(request_for(program, dist)) == json.loads(json.dumps(made[1]))


def test_paths_with_spaces_and_unicode_work(program: Path, tmp_path: Path):
    own = tmp_path / "mein Netz – 網路" / "tiny.pt2"
    own.parent.mkdir()
    shutil.copy(program, own)
    manifest = run(request_for(own, tmp_path / "Ausgabe für später"))
    assert manifest["artifacts"][0]["checks"][0]["status"] == "passed"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"formats": ("tflight",)}, "did you mean tflite"),
        ({"precisions": ("int4",)}, "int8"),
        ({"formats": ("tvm",), "precisions": ("fp16",)}, "tvm comes in fp32"),
        ({"tflite_converter": "onnx"}, "onnx2tf"),
    ],
)
def test_an_unknown_or_impossible_choice_says_what_there_is(options: dict, says: str):
    with pytest.raises(UsageError) as caught:
        _ = Request("fasternet_t0", targets.load("cortex-a72"), **options).units
    assert says in caught.value.next_step


def test_every_family_for_a_target_that_cannot_take_one_is_a_skip_with_the_reason():
    units = Request("fasternet_t0", targets.load("iphone-12"), ("all",)).units
    assert {u.format.name for u in units} == set(FORMATS)
    assert {u.format.name for u in units if u.obstacle} == {"tvm"}
    with pytest.raises(EdgeError, match=r"no \[tvm\] table"):
        _ = Request("fasternet_t0", targets.load("iphone-12"), ("tvm",)).units
