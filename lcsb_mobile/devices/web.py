"""The web page and bundles for it, served on this machine: at `localhost`, and to a phone in the same network if that is asked for."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lcsb_mobile.bundle.files import is_inside
from lcsb_mobile.config import Record
from lcsb_mobile.devices.file_server import Entry, FileServer
from lcsb_mobile.devices.pushed import files_for_device
from lcsb_mobile.errors import OptionError
from lcsb_mobile.installing import clone_folder
from lcsb_mobile.ranges import check_ranges

TARGETS = ("onnxruntime",)
PORT = 5272  # LCSB on a phone's keys. What a browser keeps, bundles and runs, belongs to the address, port included
PAGE = "index.html"
LISTING = "/bundles.json"
LOCAL, EVERYWHERE = "127.0.0.1", "0.0.0.0"
SOMEWHERE_ELSE = ("192.0.2.1", 9)  # an address that is nobody's (RFC 5737)


@dataclass(frozen=True)
class WebOptions:
    """`site`: the folder of the page, by default that of the clone. `port`: 0 takes a free one. `lan`: listen to the network. `certificate`
    and `key`: PEM files, for https; a certificate's file may have its key in it."""

    bundles: Sequence[Path]
    site: Path | None = None
    port: int = PORT
    lan: bool = False
    certificate: Path | None = None
    key: Path | None = None


class ServedFile(Record, frozen=True):
    name: str
    size: int


class ServedBundle(Record, frozen=True):
    """`path`: relative to the page's."""

    name: str
    path: str
    files: tuple[ServedFile, ...]


class Listing(Record, frozen=True):
    """What LISTING holds."""

    bundles: tuple[ServedBundle, ...]


class Serving(Record, frozen=True):
    """What `lcsb web --json` prints. `lan_address`: for others in the network."""

    address: str
    lan_address: str | None
    bundles: tuple[str, ...]


def open_server(options: WebOptions, refused: Callable[[str], None]) -> tuple[FileServer, Serving]:
    """A server that listens; `serve_forever` answers. `refused`: told of each request that gets nothing.

    Raises OptionError for what cannot be served so, BundleError or IntegrityError for a bundle.
    """
    check_ranges({"port": options.port})
    names = _names(options.bundles)
    entries = _site_files(options.site)
    tls = _tls(options.certificate, options.key)
    lan = _lan_address() if options.lan else None
    bundles = tuple(_bundle(name, directory, entries) for name, directory in names.items())
    entries[LISTING] = msgspec.json.encode(Listing(bundles))
    try:
        server = FileServer((EVERYWHERE if options.lan else LOCAL, options.port), entries, refused, tls)
    except OSError as error:
        raise OptionError(f"port: {options.port} cannot be had: {error.strerror}; choose another, or 0 for one that is free") from error
    scheme, port = "http" if tls is None else "https", server.server_address[1]
    return server, Serving(f"{scheme}://localhost:{port}/", lan and f"{scheme}://{lan}:{port}/", tuple(names))


def _names(directories: Sequence[Path]) -> dict[str, Path]:
    """What the bundles are called in the page, for which their folders are named after them."""
    names = [directory.resolve().name for directory in directories]
    if doubled := [name for name, count in Counter(map(str.casefold, names)).items() if count > 1]:
        found = ", ".join(str(directory) for directory, name in zip(directories, names, strict=True) if name.casefold() in doubled)
        raise OptionError(f"bundle: expected folders of different names, by which the page tells them apart, found {found}; rename one")
    return dict(zip(names, directories, strict=True))


def _bundle(name: str, directory: Path, entries: dict[str, Entry]) -> ServedBundle:
    """Adds the files that its manifest lists."""
    files = files_for_device(directory, TARGETS, "page", **{f"{directory}: the folder's name": name})
    path = f"bundles/{name}/"
    entries.update({f"/{path}{file}": directory / file for file in files})
    return ServedBundle(name, path, tuple(ServedFile(file, size) for file, size in files.items()))


def _site_files(site: Path | None) -> dict[str, Entry]:
    """Every file of the page by its path, but for hidden ones. Raises OptionError where there is no page."""
    if site is None:
        clone = clone_folder()
        if clone is None:
            raise OptionError("site: the page is no part of the installed package; build it in a clone with make web, and name its folder")
        site = clone / "web_demo" / "build" / "site"
        advice = f"build it with: make -C {clone} web"
    else:
        advice = "expected a folder that make web has built"
    if not (site / PAGE).is_file():
        raise OptionError(f"site: {site} has no page ({PAGE}); {advice}")
    names = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*")) if path.is_file()]
    shown = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    if outside := [name for name in shown if not is_inside(site, name)]:
        raise OptionError(f"site: {site / outside[0]} is a link that leads out of the folder; remove it")
    return {"/": site / PAGE, **{f"/{name}": site / name for name in shown}}


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        if key is not None:
            raise OptionError("key: belongs to a certificate; expected --certificate beside it, found none")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:  # what is no PEM file is an SSLError, which is an OSError
        what = certificate if key is None else f"{certificate} and {key}"
        said = error.strerror or error if isinstance(error, OSError) else error
        raise OptionError(
            f"certificate: {what}: {said}; expected a certificate and its key, which no password protects, as PEM files"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key is protected by a password")


def _lan_address() -> str:
    """Of this machine, as others in its network call it. Nothing is sent: the system says from where it would be."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(SOMEWHERE_ELSE)
        except OSError as error:
            raise OptionError(f"lan: this machine is in no network ({error.strerror}); join one, or leave --lan out") from error
        return str(probe.getsockname()[0])
