"""The documentation site: it builds without a warning, asks no other machine, and fits screens."""

import functools
import html.parser
import http.server
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import pytest

from tests import hangs
from tests.pages import ROOT

if not importlib.util.find_spec("mkdocs"):
    pytest.skip("MkDocs is not installed: the extra `docs`", allow_module_level=True)

# Links that say something about a page, and load nothing.
_SAYS = {"canonical", "prev", "next", "alternate", "author", "license"}
_OTHER_MACHINE = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//", re.I)
_IN_STYLES = re.compile(r"url\(\s*['\"]?([^)'\"\s]+)|@import\s+['\"]([^'\"]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The site, built in a folder of the tests' own."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


class Requests(html.parser.HTMLParser):
    """What a browser loads to show a page, as the page writes it."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self._style = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self._style = tag == "style"
        self.found += of_styles(values.get("style", ""))
        self.found += [values[name] for name in ("src", "poster", "data") if name in values]
        self.found += [part.split()[0] for part in values.get("srcset", "").split(",") if part]
        if tag == "use" or (tag == "link" and not _SAYS & set(values.get("rel", "").split())):
            self.found += [values.get("href", ""), values.get("xlink:href", "")]

    def handle_data(self, data):
        if self._style:
            self.found += of_styles(data)


def of_styles(styles: str) -> list[str]:
    return [url or imported for url, imported in _IN_STYLES.findall(styles)]


def test_settings_are_plain_yaml():
    """Other generators read them, too: there are no tags of Python's."""
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["theme"]["font"] is False


def test_each_page_is_there(site):
    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs).with_suffix("")) for page in docs.rglob("*.md")}
    built = {str(page.parent.relative_to(site)) for page in site.rglob("index.html")}
    assert {page.removesuffix("/index") for page in pages} == built - {"."} | {"index"}
    assert (site / "index.html").exists() and not list(site.rglob("*.py"))


def test_nothing_is_asked_of_other_machines(site):
    loaded = {}
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded[page] = Requests(text).found
        # Scripts of the theme's that load something do so for these.
        assert 'class="mermaid"' not in text and "data-md-source" not in text
    for styles in site.rglob("*.css"):
        loaded[styles] = of_styles(styles.read_text("utf-8"))
    assert sum(len(found) for found in loaded.values()) > 100
    elsewhere = {
        (str(file.relative_to(site)), url)
        for file, found in loaded.items()
        for url in found
        if _OTHER_MACHINE.match(url)
    }
    assert not elsewhere


def test_what_loads_is_seen():
    page = """<link rel=stylesheet href="//a"><script src="https://b"></script><img srcset="//c 2x">
    <style>@import "//d"; p {background: url('https://e')}</style><p style="background: url(//f)">
    <a href="https://no"></a><link rel="canonical" href="https://no">"""
    found = [url for url in Requests(page).found if _OTHER_MACHINE.match(url)]
    assert sorted(url[-1] for url in found) == list("abcdef")


# --- in a browser ---------------------------------------------------------------------------

# Each page in a frame of each width: how wide its content is, and what is wrong with its pictures.
# A browser's own window cannot be as narrow as a phone's.
_MEASURES = """<!doctype html><script>
const pages = PAGES, widths = WIDTHS, found = [];
function pictures(doc, width) {
  const wrong = [], style = one => doc.defaultView.getComputedStyle(one);
  for (const img of doc.querySelectorAll("article img")) {
    const box = img.getBoundingClientRect();
    const whole = img.complete && img.naturalWidth > 0 && box.width >= 200;
    const shape = Math.abs(box.width / box.height / (img.naturalWidth / img.naturalHeight) - 1);
    const by = img.parentElement;  // which may be scrolled by itself
    const scrolled = style(by).overflowX == "auto" ? by.scrollWidth - by.clientWidth : 0;
    const inside = box.left >= 0 && box.right - scrolled <= width;
    if (!whole || !inside || shape > 0.02) wrong.push(img.getAttribute("src"));
  }
  return wrong;
}
async function measure(page, width) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width: ${width}px; height: 800px; border: 0`;
  const loaded = new Promise(done => frame.onload = done);
  frame.src = page;
  document.body.replaceChildren(frame);
  await loaded;
  const doc = frame.contentDocument, root = doc.documentElement;
  await doc.fonts.ready;
  await new Promise(done => setTimeout(done, 100));
  found.push({
    page, width,
    wide: Math.max(root.scrollWidth, doc.body.scrollWidth),
    pictures: pictures(doc, width),
    elsewhere: frame.contentWindow.performance.getEntriesByType("resource")
      .map(entry => entry.name).filter(name => !name.startsWith(location.origin)),
  });
}
onload = async () => {
  for (const page of pages) for (const width of widths) await measure(page, width);
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
};
</script><body></body>"""
WIDTHS = (390, 1200)
# What a page writes to the console goes to stderr. No other machine has an address.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-sync "
    "--disable-component-update --enable-logging=stderr --window-size=1400,900 "
    "--remote-debugging-port=0"  # or else it ends once the page is loaded
)
_NO_OTHERS = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site and the page that measures it, and takes what that found."""

    def do_GET(self):
        if self.path not in ("/measures", "/favicon.ico"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.server.measures.encode())

    def do_POST(self):
        self.server.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

    def send_error(self, code, message=None, explain=None):
        self.server.missing.append(self.path)
        super().send_error(code, message, explain)

    def log_message(self, *arguments):
        pass


class Seen(NamedTuple):
    """What a browser saw of a site.

    Attributes:
        found: What each page has at each width, a dictionary each.
        errors: Lines of its console.
        missing: What it asked for in vain.
    """

    found: list[dict[str, Any]]
    errors: list[str]
    missing: list[str]


def in_a_browser(folder: pathlib.Path, pages: list[str], profile: pathlib.Path) -> Seen:
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.done, server.found, server.missing = threading.Event(), None, []
        measures = _MEASURES.replace("PAGES", json.dumps(pages))
        server.measures = measures.replace("WIDTHS", json.dumps(WIDTHS))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = ["chromium", *FLAGS.split(), _NO_OTHERS, f"--user-data-dir={profile}"]
        log = profile.with_suffix(".log")
        with log.open("w") as stderr:
            address = f"http://127.0.0.1:{server.server_port}/measures"
            browser = subprocess.Popen([*command, address], stdout=stderr, stderr=stderr)
            try:
                assert server.done.wait(hangs.SECONDS), "Chromium did not measure the pages in time"
            finally:
                browser.terminate()
                browser.wait(30)
                server.shutdown()
    assert len(server.found) == len(pages) * len(WIDTHS)
    lines = log.read_text("utf-8", "replace").splitlines()
    return Seen(server.found, [line for line in lines if "CONSOLE" in line], server.missing)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not on the path")
def test_pages_fit_screens_and_write_no_error(site, tmp_path):
    pages = sorted(f"/{page.relative_to(site)}" for page in site.rglob("index.html"))
    seen = in_a_browser(site, pages, tmp_path / "profile")
    assert not [page for page in seen.found if page["wide"] > page["width"]]
    assert not [page for page in seen.found if page["pictures"] or page["elsewhere"]]
    assert not seen.errors and not seen.missing


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not on the path")
def test_a_browser_sees_what_is_wrong_with_a_page(tmp_path):
    """Of a page that is too wide, with a picture that is missing, and that asks another machine."""
    body = """<article style="width: 2000px"><img src="missing.svg"></article>
    <script src="https://example.org/a.js"></script><script>nothing.there()</script>"""
    (tmp_path / "index.html").write_text(f"<!doctype html><body>{body}</body>", "utf-8")
    seen = in_a_browser(tmp_path, ["/index.html"], tmp_path / "profile")
    assert [page["width"] for page in seen.found] == list(WIDTHS)
    for page in seen.found:
        assert page["wide"] > page["width"] and page["pictures"] == ["missing.svg"]
        assert page["elsewhere"] == ["https://example.org/a.js"]
    assert seen.missing[0] == "/missing.svg"
    assert any("nothing is not defined" in error for error in seen.errors)
