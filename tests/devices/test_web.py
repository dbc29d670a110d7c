"""`lcsb web` as a browser sees it: which files there are, in which pieces, with which headers; and what is refused before it listens."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from helpers.bundles import RandomBundle, lcsb_error
from helpers.hostile import edit, put
from helpers.signals import as_usual

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.devices import web
from lcsb_mobile.devices.file_server import byte_range, is_own_name
from lcsb_mobile.devices.web import Serving, WebOptions, open_server
from lcsb_mobile.errors import IntegrityError, OptionError

WEIGHTS = "/bundles/bundle/weights.bin"
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Browser:
    """One connection that is kept, so that an answer that is longer or shorter than it says spoils the next."""

    connection: http.client.HTTPConnection
    serving: Serving
    refused: list[str] = field(default_factory=list)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        self.connection.putrequest(method, path, skip_host=True)
        for name, text in {"Host": "localhost", **headers}.items():
            self.connection.putheader(name.replace("_", "-"), text)
        try:
            self.connection.endheaders()
            response = self.connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except http.client.HTTPException:
            self.connection.close()  # the next one begins anew
            raise


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    (site / "index.html").write_text("<!doctype html>")
    (site / "ort").mkdir()
    for name in ("worker.js", "ort/ort.mjs", "ort/ort.wasm", "app.webmanifest", "app.css", "tokens.json"):
        (site / name).write_text(name)
    (site / "empty.txt").touch()
    (site / ".git").mkdir()
    (site / ".git" / "config").write_text("hidden")
    return site


@contextmanager
def browsing(options: WebOptions, tls: ssl.SSLContext | None = None) -> Iterator[Browser]:
    refused: list[str] = []
    server, serving = open_server(options, refused.append)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    port = server.server_address[1]
    connection = http.client.HTTPSConnection("localhost", port, context=tls) if tls else http.client.HTTPConnection("localhost", port)
    try:
        yield Browser(connection, serving, refused)
    finally:
        connection.close()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def browser(random_bundle: RandomBundle, site: Path) -> Iterator[Browser]:
    with browsing(WebOptions([random_bundle.bundle], site, port=0)) as browser:
        yield browser


# What there is


def test_a_bundle_whole(browser: Browser, random_bundle: RandomBundle) -> None:
    """By what bundles.json says, as the page takes it: the same bundle, digests and all."""
    listed = json.loads(browser.ask("/bundles.json").body)
    (bundle,) = listed.pop("bundles")
    assert listed == {} and bundle.keys() == {"name", "path", "files"}
    assert (bundle["name"], bundle["path"]) == ("bundle", "bundles/bundle/")
    assert [file["name"] for file in bundle["files"]] == ["manifest.json", *Bundle.open(random_bundle.bundle).manifest.files]
    for file in bundle["files"]:
        answer = browser.ask(f"/{bundle['path']}{file['name']}")
        assert answer.status == 200 and len(answer.body) == file["size"]
        assert answer.body == (random_bundle.bundle / file["name"]).read_bytes()


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?v=1", "text/html; charset=utf-8"),
        ("/worker.js", "text/javascript; charset=utf-8"),
        ("/ort/ort.mjs", "text/javascript; charset=utf-8"),
        ("/ort/ort.wasm", "application/wasm"),
        ("/app.webmanifest", "application/manifest+json"),
        ("/%61pp.css", "text/css; charset=utf-8"),
        ("/bundles.json", "application/json"),
        ("/empty.txt", "text/plain; charset=utf-8"),
        (WEIGHTS, "application/octet-stream"),
    ],
)
def test_types_and_headers(browser: Browser, path: str, content_type: str) -> None:
    answer = browser.ask(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)
    assert {name: answer.headers[name] for name in ISOLATED} == ISOLATED
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'" and "unsafe-inline" not in str(policy)
    head = browser.ask(path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert {name: text for name, text in head.headers.items() if name != "Date"} == {
        name: text for name, text in answer.headers.items() if name != "Date"
    }


@pytest.mark.parametrize(
    "path",
    [
        *("/absent", "/ort", "/ort/", "/.git/config", "/bundles", "/bundles/", "/bundles/bundle", "/bundles/bundle/", "/bundles/other/x"),
        *("/../site/index.html", "/ort/../index.html", "/%2e%2e/index.html", "/bundles/bundle/../../index.html", "/\\index.html"),
        *("/index.html%00", "/%ff", "/bundles/bundle/%2e%2e%2fadapter.safetensors", "http://localhost/index.html", "*", "index.html/"),
    ],
)
def test_what_is_not_listed_is_not_there(browser: Browser, path: str) -> None:
    answer = browser.ask(path)
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert browser.refused[-1].endswith("404 Not Found: no such file is served")
    assert browser.ask("/").status == 200


def test_an_unlisted_file_of_a_bundle(bundle: Path, site: Path) -> None:
    (bundle / "private.txt").write_text("mine")
    with browsing(WebOptions([bundle], site, port=0)) as browser:
        assert browser.ask("/bundles/bundle/private.txt").status == 404
        (bundle / "weights.bin").unlink()
        assert browser.ask(WEIGHTS).status == 404 and "cannot be read now" in browser.refused[-1]


def test_nothing_but_reading(browser: Browser) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert browser.ask("/", method).status == 501


# Pieces


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-", (0, 10)),
        ("bytes=4-7", (4, 8)),
        ("bytes=4-70", (4, 10)),
        ("bytes=9-", (9, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
    ],
)
def test_ranges(asked: str, found: tuple[int, int]) -> None:
    assert byte_range(asked, 10) == range(*found)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_ranges_of_nothing(asked: str) -> None:
    assert byte_range(asked, 10) is not None and not byte_range(asked, 10)


@pytest.mark.parametrize(
    "asked", ["", "bytes", "bytes=", "bytes=-", "bytes=7-4", "bytes=a-b", "bytes=0-1,4-5", "items=0-1", f"bytes={'9' * 5000}-"]
)
def test_what_is_no_single_range_is_passed_over(asked: str) -> None:
    assert byte_range(asked, 10) is None


def test_a_download_goes_on(browser: Browser, random_bundle: RandomBundle) -> None:
    whole = (random_bundle.bundle / "weights.bin").read_bytes()
    begun = browser.ask(WEIGHTS, Range="bytes=0-99")
    tag = begun.headers["ETag"]
    rest = browser.ask(WEIGHTS, Range="bytes=100-", If_Range=tag)
    assert begun.status == rest.status == 206 and begun.body + rest.body == whole
    assert rest.headers["Content-Range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}" and rest.headers["Accept-Ranges"] == "bytes"
    assert browser.ask(WEIGHTS, Range="bytes=100-", If_Range='"of another"').body == whole
    assert browser.ask(WEIGHTS, "HEAD", Range="bytes=100-").headers["Content-Length"] == str(len(whole))
    beyond = browser.ask(WEIGHTS, Range=f"bytes={len(whole)}-")
    assert (beyond.status, beyond.headers["Content-Range"], beyond.body) == (416, f"bytes */{len(whole)}", b"")


def test_what_has_not_changed_is_not_sent_again(bundle: Path, site: Path) -> None:
    with browsing(WebOptions([bundle], site, port=0)) as browser:
        for path in ("/", "/bundles.json", WEIGHTS):
            tag = browser.ask(path).headers["ETag"]
            for known in (tag, f'"other", W/{tag}'):
                again = browser.ask(path, If_None_Match=known, Range="bytes=0-1")
                assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        whole = (bundle / "weights.bin").read_bytes()
        (bundle / "weights.bin").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert browser.ask(WEIGHTS, If_None_Match=tag).status == 200


# Who may ask


@pytest.mark.parametrize("host", ["localhost", "localhost:5272", "LOCALHOST:80", "127.0.0.1:1", "[::1]:5272", "192.168.1.20:5272"])
def test_own_names(browser: Browser, host: str) -> None:
    assert browser.ask("/", Host=host).status == 200


@pytest.mark.parametrize("host", ["", "example.org", "localhost.example.org:5272", "127.0.0.1.example.org", "[::1", "a b"])
def test_names_that_were_made_to_lead_here(browser: Browser, host: str) -> None:
    assert not is_own_name(host)
    assert browser.ask("/bundles.json", Host=host).status == 421


def test_it_listens_to_this_machine_alone_unless_asked(random_bundle: RandomBundle, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_lan_address", lambda: "192.168.1.20")
    for lan, address in ((False, "127.0.0.1"), (True, "0.0.0.0")):
        server, serving = open_server(WebOptions([random_bundle.bundle], site, port=0, lan=lan), print)
        with server:
            port = server.server_address[1]
            assert server.server_address[0] == address
            assert serving == Serving(f"http://localhost:{port}/", f"http://192.168.1.20:{port}/" if lan else None, ("bundle",))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For `localhost`, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


def test_https(random_bundle: RandomBundle, site: Path, certificate: Path) -> None:
    """By any name that the certificate is for; who does not trust it disturbs nobody."""
    trusting = ssl.create_default_context(cafile=certificate.with_suffix(".crt"))
    with browsing(WebOptions([random_bundle.bundle], site, port=0, certificate=certificate), trusting) as browser:
        assert browser.serving.address.startswith("https://localhost:")
        with pytest.raises(ssl.SSLCertVerificationError):
            http.client.HTTPSConnection("localhost", browser.connection.port).request("GET", "/")
        assert browser.ask("/", Host="phone.example.org").status == 200
        assert browser.ask(WEIGHTS, Range="bytes=5-").body == (random_bundle.bundle / "weights.bin").read_bytes()[5:]
        assert not browser.refused


# What is refused before it listens


def test_no_page(random_bundle: RandomBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = lcsb_error(2, "web", random_bundle.bundle, "--site", tmp_path)
    assert line == f"error: site: {tmp_path} has no page (index.html); expected a folder that make web has built"
    monkeypatch.setattr(web, "clone_folder", lambda: tmp_path)
    assert f"build it with: make -C {tmp_path} web" in lcsb_error(2, "web", random_bundle.bundle)
    monkeypatch.setattr(web, "clone_folder", lambda: None)
    assert "build it in a clone with make web" in lcsb_error(2, "web", random_bundle.bundle)


def test_a_page_with_a_link_out_of_it(random_bundle: RandomBundle, site: Path, tmp_path: Path) -> None:
    linked = Path(shutil.copytree(site, tmp_path / "linked"))
    (tmp_path / "secret").write_text("x")
    (linked / "secret.txt").symlink_to(tmp_path / "secret")
    assert "secret.txt is a link that leads out of the folder" in lcsb_error(2, "web", random_bundle.bundle, "--site", linked)


def test_two_bundles_of_one_name(random_bundle: RandomBundle, site: Path, tmp_path: Path) -> None:
    other = tmp_path / "Bundle"
    line = lcsb_error(2, "web", random_bundle.bundle, other, "--site", site)
    assert f"folders of different names, by which the page tells them apart, found {random_bundle.bundle}, {other}" in line


def test_bundles_that_are_none(bundle: Path, site: Path, tmp_path: Path) -> None:
    spaced = bundle.rename(tmp_path / "my bundle")
    assert f"{spaced}: the folder's name: expected letters" in lcsb_error(2, "web", spaced, "--site", site)
    edit(spaced, put("files/weights.bin/sha256", "0" * 64))
    with pytest.raises(IntegrityError):
        open_server(WebOptions([spaced], site, port=0), print)


@pytest.mark.training_api
def test_bundles_of_a_target_that_the_page_does_not_run(random_training_bundle: RandomBundle, site: Path) -> None:
    line = lcsb_error(2, "web", random_training_bundle.bundle, "--site", site)
    assert "the page runs bundles of target onnxruntime, found onnxruntime-training" in line


def test_a_port_that_is_taken(random_bundle: RandomBundle, site: Path, browser: Browser) -> None:
    line = lcsb_error(2, "web", random_bundle.bundle, "--site", site, "--port", browser.connection.port)
    assert line.startswith(f"error: port: {browser.connection.port} cannot be had: Address already in use; choose another, or 0")


def test_certificates_that_are_none(random_bundle: RandomBundle, site: Path, certificate: Path, tmp_path: Path) -> None:
    arguments = ("web", random_bundle.bundle, "--site", site)
    assert "expected --certificate beside it, found none" in lcsb_error(2, *arguments, "--key", certificate)
    assert "No such file" in lcsb_error(2, *arguments, "--certificate", tmp_path / "absent")
    assert "expected a certificate and its key" in lcsb_error(2, *arguments, "--certificate", site / "index.html")
    command = ["openssl", "ec", "-in", certificate, "-aes128", "-passout", "pass:x", "-out", tmp_path / "key"]
    subprocess.run(command, check=True, capture_output=True)
    line = lcsb_error(2, *arguments, "--certificate", certificate.with_suffix(".crt"), "--key", tmp_path / "key")
    assert "protected by a password" in line


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SOMEWHERE_ELSE", ("255.255.255.255", 9))  # to which the system refuses to connect
    with pytest.raises(OptionError, match="lan: this machine is in no network"):
        web._lan_address()


# The command


def test_ctrl_c_ends_it(random_bundle: RandomBundle, site: Path) -> None:
    """With a download under way that nobody reads."""
    program = "import sys; from lcsb_mobile.cli import main; sys.argv[0] = 'lcsb'; main()"
    command = [sys.executable, "-c", program, "web", random_bundle.bundle, "--site", site, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=as_usual) as process:
        assert process.stdout is not None and process.stderr is not None
        serving = json.loads(process.stdout.readline())
        assert serving.keys() == {"address", "lan_address", "bundles"} and serving["bundles"] == ["bundle"]
        connection = http.client.HTTPConnection("localhost", urlsplit(serving["address"]).port)
        connection.request("GET", WEIGHTS)
        process.send_signal(2)
        assert process.wait() == 130
        assert process.stderr.read() == "stopped\n" and process.stdout.read() == ""
        connection.close()


def test_an_unexpected_error_is_told(random_bundle: RandomBundle, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("why")

    with browsing(WebOptions([random_bundle.bundle], site, port=0)) as browser:
        monkeypatch.setattr("lcsb_mobile.devices.file_server.path_of", fail)
        with pytest.raises(http.client.RemoteDisconnected):
            browser.ask("/")
        assert browser.refused == ["127.0.0.1: ZeroDivisionError: why"]


def test_what_it_says(random_bundle: RandomBundle, capsys: pytest.CaptureFixture[str]) -> None:
    from lcsb_mobile.cli.web import show

    show(Serving("http://localhost:5272/", None, ("tiny", "mine")))
    assert "http://localhost:5272/  on this machine: tiny, mine\n" in (said := capsys.readouterr().out)
    assert "adb reverse tcp:5272 tcp:5272" in said
    show(Serving("http://localhost:5272/", "http://192.168.1.20:5272/", ("tiny",)))
    assert "no storage (OPFS), no service worker, no threads" in (said := capsys.readouterr().out) and "--certificate" in said
    show(Serving("https://localhost:5272/", "https://192.168.1.20:5272/", ("tiny",)))
    assert "adb" not in capsys.readouterr().out
