"""The page in headless Chromium, at the widths of a phone and a desk: nothing complains, sticks out or overlaps."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import report_manifests as manifests

from edge.report import page, summary
from edge.toolchains import chromium

pytestmark = pytest.mark.slow

WIDTHS = (390, 1280)
POLICY = "style-src 'unsafe-inline'\">"
PROBE = """
const faults = [];
addEventListener("error", e => faults.push(`error ${e.message || e.target.outerHTML}`), true);
addEventListener("securitypolicyviolation", e => faults.push(`${e.violatedDirective} ${e.blockedURI}`));
console.error = console.warn = (...words) => faults.push(words.join(" "));
addEventListener("load", () => {
  const box = element => element.getBoundingClientRect();
  const name = element => `${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
  const outside = [...document.body.querySelectorAll("*")].filter(
    element => !element.closest(".scroll") && (box(element).right > innerWidth + 1 || box(element).left < -1));
  const overlaps = [];
  for (const plot of document.querySelectorAll(".plot")) {
    const texts = [...plot.querySelectorAll("text")].filter(text => box(text).width);
    texts.forEach((a, index) => texts.slice(index + 1).forEach(b => {
      const [p, q] = [box(a), box(b)];
      if (p.left < q.right && q.left < p.right && p.top + 2 < q.bottom && q.top + 2 < p.bottom)
        overlaps.push(`${name(a)} / ${name(b)}`);
    }));
  }
  const sentence = document.querySelector(".sentence");
  const shown = box(sentence).bottom <= 800 && sentence.checkVisibility() ? sentence.innerText : "";
  const smallest = Math.min(...[...document.querySelectorAll("text")].map(text => box(text).height).filter(Boolean));
  parent.report({width: innerWidth, scroll: document.documentElement.scrollWidth, verdict: shown, faults, overlaps,
    outside: outside.map(name), plots: [...document.querySelectorAll(".plot")].filter(p => box(p).width).length,
    smallest: isFinite(smallest) ? smallest : null});
});
"""
HARNESS = """<!doctype html><meta charset="utf-8"><pre id="found"></pre>
<script>const found = []; function report(one) {{ found.push(one);
document.getElementById("found").textContent = JSON.stringify(found); }}</script>{frames}"""


def opened(report: str, folder: Path) -> list[dict[str, Any]]:
    """What a probe inside the page finds at each width; the page's own policy stays in force, but for the probe."""
    assert POLICY in report
    probed = report.replace(
        POLICY, f"style-src 'unsafe-inline'; script-src 'nonce-probe'\"><script nonce=\"probe\">{PROBE}</script>"
    )
    frame = f'height="800" style="border:0" srcdoc="{html.escape(probed)}"></iframe>'
    frames = "".join(f'<iframe width="{width}" {frame}' for width in WIDTHS)
    harness = folder / "harness.html"
    harness.write_text(HARNESS.format(frames=frames), encoding="utf-8")
    found = re.search(r'<pre id="found">(.*?)</pre>', chromium.dump_dom(harness), flags=re.DOTALL)
    assert found
    return sorted(json.loads(html.unescape(found[1])), key=lambda one: one["width"])


@pytest.mark.parametrize("name", manifests.ALL)
def test_the_page_is_sound_on_a_phone_and_on_a_desk(name: str, tmp_path: Path) -> None:
    manifest = manifests.ALL[name]()
    found = opened(page.render(manifest), tmp_path)
    assert [one["width"] for one in found] == list(WIDTHS)
    for one in found:
        assert one["faults"] == []
        assert one["outside"] == []
        assert one["overlaps"] == []
        assert one["scroll"] <= one["width"]
        assert one["verdict"] == summary.verdict(manifest)
        assert one["plots"] == (2 if manifest["artifacts"] else 0), "one drawing of each plot"
        assert one["smallest"] is None or one["smallest"] >= 11, "text in the plots is readable"


def test_the_probe_finds_what_it_looks_for(tmp_path: Path) -> None:
    spoilt = page.render(manifests.manifest()).replace(
        "<main>", '<main><img src="picture.png"><div style="width: 2000px">too wide</div><script>alert(1)</script>'
    )
    spoilt = re.sub(r'(<text [^>]*) y="[0-9.]+"', r'\1 y="100"', spoilt)
    for one in opened(spoilt, tmp_path):
        assert any("img-src" in fault for fault in one["faults"])
        assert any("script-src" in fault for fault in one["faults"])
        assert "DIV too wide" in one["outside"]
        assert one["scroll"] > one["width"]
        assert one["overlaps"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_can_be_photographed(width: int, tmp_path: Path) -> None:
    report, png = tmp_path / "report.html", tmp_path / "report.png"
    page.write(manifests.troubled(), report)
    chromium.screenshot(report, png, width, 1000)
    from PIL import Image

    with Image.open(png) as image:
        assert image.size == (width, 1000)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert (0xFC, 0xE8, 0xE6) in colours, "the verdict's ground, for a run that failed"
