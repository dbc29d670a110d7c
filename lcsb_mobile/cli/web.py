"""`lcsb web`: the web page and bundles, for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.text import Text
from typer import Option

from lcsb_mobile.cli.console import Json, err, note, print_json, say, shown, verb
from lcsb_mobile.devices.web import Serving, WebOptions, open_server
from lcsb_mobile.training.interrupts import Interrupts

DEFAULTS = WebOptions(bundles=())


def register(app: typer.Typer) -> None:
    app.command("web", epilog="Example: lcsb web tiny.bundle")(web)


@verb
def web(
    bundle: Annotated[list[Path], typer.Argument(help="TrainingBundles of target onnxruntime.", show_default=False)],
    site: Annotated[Path | None, Option(help="The folder of the page.", show_default="what make web built")] = DEFAULTS.site,
    port: Annotated[
        int, Option(help="Where the page is; 0: one that is free. A browser keeps bundles and runs by the address, port included.")
    ] = DEFAULTS.port,
    lan: Annotated[bool, Option("--lan", help="Listen to the network, too: anybody in it can read page and bundles.")] = DEFAULTS.lan,
    certificate: Annotated[
        Path | None, Option(help="Serve by https, with this certificate (PEM).", show_default="none: http")
    ] = DEFAULTS.certificate,
    key: Annotated[Path | None, Option(help="The certificate's key (PEM).", show_default="in the certificate's file")] = DEFAULTS.key,
    json: Json = False,
) -> None:
    """Serve the web page and bundles for it on this machine, and to a phone in the same network if asked to.

    With --json the addresses are printed when it listens. Ctrl-C ends it.
    """
    with Interrupts(last=True):
        with err.status(Text(shown(f"checking {', '.join(map(str, bundle))} …"))):
            server, served = open_server(WebOptions(bundle, site, port, lan, certificate, key), note)
        with server:
            if json:
                print_json(served)
            else:
                show(served)
            server.serve_forever()


def show(served: Serving) -> None:
    port = urlsplit(served.address).port
    say(f"{served.address}  on this machine: {', '.join(served.bundles)}")
    if served.lan_address is None:
        say(f"an Android phone by USB opens the same address after: adb reverse tcp:{port} tcp:{port}")
    elif served.lan_address.startswith("https:"):
        say(f"{served.lan_address}  in the network, or by the name that the certificate is for")
    else:
        say(f"{served.lan_address}  in the network")
        say(
            "by http from another machine a browser shows the page, and gives it no storage (OPFS), no service worker, no threads and no "
            f"GPU: nothing can be trained there; an Android phone by USB has them at {served.address} after "
            f"adb reverse tcp:{port} tcp:{port}, any other by --certificate"
        )
    say("Ctrl-C ends it")
