"""``chatterbox-turbo serve``: the model behind HTTP, for clients of OpenAI's speech API."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import ArgumentError, BackendError
from . import streams
from .common import FILE, load, model_options, there

KEY = "CHATTERBOX_API_KEY"


@click.command()
@model_options
@click.option(
    "--voices",
    type=FILE,
    metavar="DIR",
    show_default="the model's own alone",
    help="A directory of voice files; uploads go there.",
)
@click.option("--host", default="127.0.0.1", help="The address to listen on.")
@click.option("--port", default=8000, type=click.IntRange(0, 65535), help="The port; 0 for a free one.")
@click.option(
    "--api-key", envvar=KEY, show_default=f"${KEY}", metavar="KEY", help="What clients have to send as Authorization: Bearer KEY."
)
@click.option("--no-key", is_flag=True, help="Listen on another address than the loop-back one without a key.")
@click.option("--batch", default=8, metavar="N", help="Segments that are decoded together.")
@click.option("--max-queue", default=100, metavar="N", help="Requests that may wait; more are answered with 429.")
@click.option("--max-upload", default=25.0, metavar="MB", help="Size of a clip that is sent.")
@click.option("--max-input", default=100_000, metavar="N", help="Characters of a text.")
@click.option("--require-watermark", is_flag=True, help="Refuse requests without a watermark.")
@click.option("--no-compare", is_flag=True, help="Speak no text in two ways, for which another precision may be loaded.")
@click.option(
    "--cors-origin",
    multiple=True,
    metavar="ORIGIN",
    show_default="none",
    help="A page elsewhere that may ask, such as https://chat.example; * for any.",
)
@click.option("--drain", default=30.0, metavar="S", help="How long what runs may take to end after SIGTERM or Ctrl-C.")
@click.pass_obj
def command(
    bar: streams.Line,
    voices: Path | None,
    host: str,
    port: int,
    api_key: str | None,
    no_key: bool,
    batch: int,
    max_queue: int,
    max_upload: float,
    max_input: int,
    require_watermark: bool,
    no_compare: bool,
    cors_origin: tuple[str, ...],
    drain: float,
    **values: Any,
) -> int:
    """Serve OpenAI's speech API: POST /v1/audio/speech and more, on http://127.0.0.1:8000/v1; and a page on http://127.0.0.1:8000."""
    try:
        from ..serve.app import create_app
        from ..serve.run import bound, run
        from ..serve.settings import LOOPBACK, Settings, name_of
    except ImportError as error:
        raise BackendError(f"serve: {error}; pip install 'chatterbox-turbo-rs[server]'") from None
    if host not in LOOPBACK and api_key is None and not no_key:
        raise ArgumentError(f"--host {host}: others reach it there: expected --api-key (or ${KEY}), or --no-key, got neither")
    settings = Settings(
        model=name_of(values["model"]),
        voices=voices,
        api_key=api_key,
        hosts=(*LOOPBACK, host.lower()) if host in LOOPBACK and api_key is None else (),
        origins=cors_origin,
        batch=batch,
        max_queue=max_queue,
        max_upload=round(max_upload * 1e6),
        max_input=max_input,
        require_watermark=require_watermark,
        compare=not no_compare,
    )
    there(values["tokenizer"])
    listening = bound(host, port, settings.patience)
    with listening:
        tts = load(values)
        app = create_app(tts, settings)
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="chatterbox-turbo: %(message)s")
        name = f"[{host}]" if ":" in host else host
        streams.out(f"serving {settings.model} on http://{name}:{listening.getsockname()[1]}/v1")
        return 0 if run(app, listening, drain) else 1
