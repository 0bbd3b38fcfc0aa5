"""The page and the terminal's table say what the manifest says, all of it, and nothing that it does not."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_manifests as manifests
from report_manifests import Manifest
from rich.console import Console

from edge.report import page, summary, terminal

VOID = {"meta", "br", "use", "img", "link", "hr", "input"}
SVG_LEAVES = {"path", "use", "rect"}

VERDICTS = {
    "passed": "11 of 11 artifacts hold",
    "troubled": "6 of 11 artifacts hold; 3 failed; 2 skipped",
    "pyramid": "4 of 4 artifacts hold; 1 further check skipped",
    "empty": "No artifact was made",
}

every_manifest = pytest.mark.parametrize("name", manifests.ALL)


class Page(HTMLParser):
    """A parsed page: its elements, its text, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@functools.cache
def rendered(name: str) -> str:
    return page.render(manifests.ALL[name]())


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def shown(manifest: Manifest, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal.table(manifest))
    return console.export_text()


@every_manifest
def test_verdict(name: str) -> None:
    manifest = manifests.ALL[name]()
    assert summary.verdict(manifest) == VERDICTS[name]
    assert terminal.verdict is summary.verdict
    html = Page(rendered(name))
    assert VERDICTS[name] in html.text
    assert [a["class"] for tag, a in html.elements if tag == "div" and "verdict" in (a.get("class") or "")] == [
        {"passed": "verdict passed", "pyramid": "verdict skipped"}.get(name, "verdict failed")
    ]


@every_manifest
def test_page_shows_everything_and_is_sound(name: str) -> None:
    manifest = manifests.ALL[name]()
    html = Page(rendered(name))
    for artifact in manifest["artifacts"]:
        for port in [*artifact.get("inputs", ()), *artifact.get("outputs", ())]:
            assert port["tensor"] in html.text
        if artifact["file"]:
            assert artifact["file"] in html.text
            assert artifact["sha256"] in html.text
        for check in artifact["checks"]:
            assert squeezed(summary.plain(check["reason"])) in html.text
    for rewrite in manifest["rewrites"]:
        assert rewrite["name"] in html.text and rewrite["algebra"] in html.text
    locks = manifest["environment"]["locks"].values()
    for text in (*manifest["calibration"]["images"], *locks, manifest["command"], manifest["key"]):
        assert text in html.text
    identifiers = [a["id"] for _, a in html.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    links = [a["href"] for _, a in html.elements if "href" in a]
    assert {str(link).removeprefix("#") for link in links} <= set(identifiers)


@every_manifest
def test_nothing_comes_from_outside(name: str) -> None:
    html = rendered(name)
    parsed = Page(html)
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "image", "base", "form"}
    for _, attributes in parsed.elements:
        assert not {"src", "srcset", "srcdoc", "data"} & set(attributes)
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    policy = [a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_hostile_text_stays_text() -> None:
    html = rendered("troubled")
    assert "&lt;script&gt;alert(" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html)
    assert "[31m" not in html, "the escape sequence goes as a whole"
    assert "ключ 画像 🚀" in Page(html).text


def test_a_hostile_name_stays_text_in_the_plots() -> None:
    manifest = manifests.manifest()
    manifest["artifacts"][0]["file"] = 'fasternet_t1."><script>$x</script>&.so'
    html = page.render(manifest)
    assert "<script" not in html
    drawn = [text for text in Page(html).texts if text == '"><script>$x</script>&.so']
    assert len(drawn) >= 4, "in both drawings of both plots"


def test_same_manifest_same_bytes_in_another_process(tmp_path: Path) -> None:
    """Sets and hashes of strings differ from process to process; the page does not, and no half of one stays behind."""
    source = tmp_path / "manifest.json"
    source.write_text(json.dumps(manifests.troubled()), encoding="utf-8")
    code = "import json, sys; from pathlib import Path; from edge.report import page; "
    code += "page.write(json.loads(Path(sys.argv[1]).read_text('utf-8')), Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(source), str(tmp_path / "report.html")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "1", "LC_ALL": "C"})
    assert (tmp_path / "report.html").read_bytes() == rendered("troubled").encode()
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "report.html"}


def test_the_users_matplotlib_settings_do_not_matter() -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "lines.linewidth": 9, "axes.facecolor": "red"}):
        assert page.render(manifests.manifest()) == rendered("passed")


def test_plots_use_only_the_pages_colours() -> None:
    """A literal colour would be unreadable in the dark."""
    html = rendered("troubled")
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        assert not re.findall(r"(?:fill|stroke): (?!none|var\()[^;\"]+", drawing)
        variables = set(re.findall(r"var\((--[a-z0-9-]+)\)", drawing))
        assert "--plot-text" in variables
        assert all(f"{variable}:" in html for variable in variables)


def test_every_sample_is_a_dot() -> None:
    manifest = manifests.manifest()
    manifest["artifacts"] = [a for a in manifest["artifacts"] if a["file"].endswith("int8.tflite")]
    drawing = re.findall(r'<svg class="plot wide".*?</svg>', page.render(manifest), flags=re.DOTALL)[0]
    filled = re.findall(r'<use [^>]*style="fill: var\(--plot-int8\); stroke', drawing)
    hollow = re.findall(r'<use [^>]*style="fill: var\(--plot-surface\); stroke: var\(--plot-int8\)', drawing)
    assert (len(filled), len(hollow)) == (8 + 1, 8), "photographs and the legend's, random inputs"


@every_manifest
def test_plots_raise_no_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page.render(manifests.ALL[name]())


def test_layers_that_stay_in_float_are_listed_with_what_they_cost():
    for text in (Page(rendered("troubled")).text, squeezed(shown(manifests.troubled()))):
        for said in ("3 of 74 layers", "2 MEAN, 1 CONV_2D", "6.2 %", "4.3 dB", "22.1 dB", "4.66 MB", "7.02 ms"):
            assert said in text, said
    layers = Page(rendered("troubled")).text
    assert "operator 32 (MEAN) not finite, operator 50 (MEAN) −2.3 dB, <b>;26; (CONV_2D) 23.3 dB" in layers
    unrun = "3.1 MB instead of 3 MB"
    terminal_text = squeezed(shown(manifests.troubled()))
    assert unrun in terminal_text and f"{unrun}," not in terminal_text, "no time of what only an evaluator runs"
    assert "Layers that stay in float32" not in Page(rendered("passed")).text


def test_untrained_weights_are_said_to_be() -> None:
    assert "accuracy is not assessable" in Page(rendered("passed")).text
    assert "not assessable" not in Page(rendered("pyramid")).text


def test_no_classes_no_top1() -> None:
    assert "Top-1" in rendered("passed")
    assert "Top-1" not in rendered("pyramid")


def test_of_few_samples_top1_is_a_count() -> None:
    """A slow device runs one sample of a large network: none of one is not 0 % of the network."""
    line = next(line for line in summary.lines(manifests.manifest()) if line.short == "int8.tflite")
    assert line.top1.text == "93.75 %"
    line.check["samples"] = {"sqnr_db": [28.9], "kind": ["photograph"]}
    line.check["top1"] = 0.0
    assert line.top1.text == "0 of 1"


def test_a_missed_gate_is_marked_where_it_was_missed() -> None:
    line = next(line for line in summary.lines(manifests.troubled()) if line.short == "int8.tflite")
    assert line.sqnr == summary.Figure("19.9 dB", "≥ 20 dB", missed=True)
    assert not line.top1.missed
    assert '<span class="missed">19.9 dB</span>' in rendered("troubled")


def lacks_optional_fields() -> Manifest:
    manifest = manifests.manifest()
    for entry in manifest["artifacts"]:
        for field in ("notes", "seconds", "peak_memory_mb"):
            del entry[field]
        for field in ("samples", "lowering", "gate", "rms_vs_eager", "top1", "seconds"):
            del entry["checks"][0][field]
    del manifest["eager"], manifest["seconds"], manifest["key"], manifest["calibration"]["left_out"]
    del manifest["profile"]["device"]
    return manifest


def nothing_was_checked() -> Manifest:
    manifest = manifests.manifest()
    for entry in manifest["artifacts"]:
        entry["checks"] = []
    return manifest


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (lacks_optional_fields, "11 of 11 artifacts hold"),
        (nothing_was_checked, "0 of 11 artifacts hold; 11 skipped"),
    ],
)
def test_thin_manifests(made: Callable[[], Manifest], verdict: str) -> None:
    assert verdict in Page(page.render(made())).text
    assert "fp32.tflite" in shown(made())


def test_unchecked_never_counts_as_holding() -> None:
    manifest = manifests.manifest()
    manifest["artifacts"][0]["checks"] = []
    assert summary.verdict(manifest) == "10 of 11 artifacts hold; 1 skipped"
    assert summary.outcome(manifest) == "skipped"


@every_manifest
@pytest.mark.parametrize("width", [100, 200])
def test_the_table_fits(name: str, width: int) -> None:
    manifest = manifests.ALL[name]()
    text = shown(manifest, width)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for line in summary.lines(manifest):
        assert f"{line.short}" in text
        for word in line.reason.split():
            assert word in text
    statuses = re.findall(r"(passed|failed|skipped) *$", text, flags=re.MULTILINE)
    assert statuses == [line.status for line in summary.lines(manifest)]


def test_the_table_takes_no_markup_from_reasons() -> None:
    manifest = manifests.manifest()
    manifest["artifacts"][0]["checks"][0] |= {"status": "failed", "reason": "[bold]not markup[/] \x1b[2J\x07"}
    assert "[bold]not markup[/]" in shown(manifest)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (30_402_112, "30.4 MB"), (999_600, "1 MB"), (2.5e9, "2.5 GB")],
)
def test_sizes(size: int, text: str) -> None:
    assert summary.human_bytes(size) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (summary.decibels(19.99), "19.9 dB"),
        (summary.decibels(-7.51), "−7.6 dB"),
        (summary.decibels(999.0), "exact"),
        (summary.decibels(-999.0), "not finite"),
        (summary.percent(1.0), "100 %"),
        (summary.percent(0.99999), "99.99 %"),
        (summary.percent(0.57), "57 %"),
        (summary.percent(0.9375), "93.75 %"),
        (summary.relative(1.001e-5), "1.1e-5"),
        (summary.relative(0.0), "0"),
        (summary.multiple(4.01), "4.1×"),
        (summary.human_seconds(0.0118), "11.8 ms"),
        (summary.human_seconds(0.9999), "1.0 s"),
        (summary.human_seconds(93.1), "93.1 s"),
        (summary.human_seconds(250), "4 min 10 s"),
        (summary.human_count(7595368), "7.6 million"),
        (summary.human_count(999_999_999), "1 billion"),
        (summary.plain("tab\there\r\nno\xa0break \x1b]0;title\x07end\u202e"), "tab here \nno break end"),
    ],
)
def test_figures_are_rounded_against_the_artifact(text: str, expected: str) -> None:
    assert text == expected


def test_size_ratio_is_to_the_same_kind_of_file() -> None:
    manifest = manifests.manifest()
    ratios = {
        summary.lines({**manifest, "artifacts": [a]})[0].short: summary.size_ratio(a, manifest)
        for a in manifest["artifacts"]
    }
    assert ratios["fp32.tflite"] is None
    assert ratios["int8.bpte"] == pytest.approx(21_477_632 / 44_129_280)
    assert ratios["int8.pte"] == pytest.approx(7_741_696 / 30_393_344)
