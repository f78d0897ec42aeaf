"""A server from its options to Ctrl-C."""

import os
import signal
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from dlr_plugins.decoders.completions import KEY
from dlr_plugins.decoders.hf import HFDecoder
from dlr_plugins.serving.request import Limits
from dlr_plugins.serving.server import CompletionServer

from dlr_core.errors import ConfigError


def serve_until_stopped(
    options: Mapping[str, Any], *, host: str, port: int, name: str, rows: int, limits: Limits
) -> None:
    """Load the model, serve it, and finish what was asked when the user wants it to end.

    Args:
        options: settings of the ``hf`` decoder.
        host: address to listen on.
        port: 0 takes a free one.
        name: what the model is called in requests.
        rows: most prompts decoded together.
        limits: how much a request may ask.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    decoder = HFDecoder(HFDecoder.Options.model_validate(dict(options)))
    key = os.environ.get(KEY) or None
    try:
        server = CompletionServer(decoder, name=name, host=host, port=port, rows=rows, limits=limits, key=key, log=log)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error}") from None
    if not key and not _is_loopback(server.server_name):
        log(f"warning: whoever reaches {server.server_name} may use this server; set {KEY} to ask for a key")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"serving {name} on {server.url} (Ctrl-C stops)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        running, waiting = server.batcher.load
        log(f"stopping: {running + waiting} prompts are finished first …")
        server.drain()
    health = server.health()
    log(f"answered {health['answered']} prompts, {health['tokens']} tokens, {health['mean_batch']} at once on average")


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
