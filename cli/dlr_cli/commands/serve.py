"""``dlr serve``: a frozen main model for the remote decoder."""

from typing import Annotated

import typer


def serve(
    main_model: Annotated[
        str, typer.Option(help="Frozen model: smollm2-135m, a folder, a .gguf file or a hub id.")
    ] = "smollm2-135m",
    host: Annotated[str, typer.Option(help="Address to listen on; the default lets in nobody else's machine.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    served_name: Annotated[str | None, typer.Option(help="Its name in requests; --main-model by default.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    rows: Annotated[int, typer.Option(min=1, help="Most prompts decoded together.")] = 64,
    positions: Annotated[int, typer.Option(min=2, help="Most positions of a prompt and its completion.")] = 4096,
    body_mb: Annotated[int, typer.Option(min=1, help="Largest request, in MB.")] = 64,
) -> None:
    """Serve completions of prompt embeddings, in vLLM's format, for --set decoder.name=remote; Ctrl-C stops.

    Prompts of all clients are decoded together, and join and leave between two tokens. Batches and refusals are lines
    on stderr. Ctrl-C finishes what has been asked; a second one does not. If VLLM_API_KEY is set, requests must carry
    it. Example: dlr serve --port 8000, then dlr run --set decoder.name=remote --set space.name=input …
    """
    from dlr_plugins.serving.request import Limits

    from dlr_cli.serving import serve_until_stopped

    limits = Limits(body_bytes=body_mb << 20, positions=positions)
    options = {"model": main_model, "device": device, "dtype": dtype}
    serve_until_stopped(options, host=host, port=port, name=served_name or main_model, rows=rows, limits=limits)
