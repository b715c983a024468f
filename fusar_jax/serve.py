"""Answers questions over HTTP: a page for people, OpenAI's API for programs.

COMMAND:
  python -m fusar_jax.serve --model runs/stage2
  python -m fusar_jax.serve --model runs/stage2 --aef AEF/ --port 8000

Needs the extra `serve`: pip install 'fusar-jax[serve]'. The page at
http://127.0.0.1:8000/ opens scenes and asks about them. Clients send messages
with images as data URLs to http://127.0.0.1:8000/v1/chat/completions; see
docs/serving.md. Requests decode together, and answers are those of
`fusar_jax.load(MODEL).ask`. /health, /metrics (Prometheus) and /v1/models say
how it does.

Only this machine reaches the server, unless --host names another address, which
needs a token. SIGTERM and Ctrl-C end it when running requests are answered.
"""

import argparse
import os
import sys

from fusar_jax import command_line
from fusar_jax.inference.options import DTYPES, MAX_NEW_TOKENS, QUANTIZATIONS

_TOKEN = "FUSAR_SERVE_TOKEN"


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("serve", __doc__)
  g = p.add_argument_group("model")
  g.add_argument(
    "--model",
    required=True,
    help="run folder, Hugging Face folder, hub id (owner/name) or tiny-base",
  )
  g.add_argument("--adapter", help="PEFT or official adapter of the model")
  g.add_argument(
    "--legacy-sigma",
    type=float,
    help="for official adapters without tlm_config.json: 2",
  )
  g.add_argument(
    "--image-size",
    type=int,
    metavar="PIXELS",
    help="side to which images are resized, for a model whose files record no"
    " size (official code: 504)",
  )
  g.add_argument(
    "--mesh",
    default="auto",
    metavar="D,F,T",
    help="devices for rows, weights and heads, as predict (default: auto)",
  )
  g.add_argument(
    "--dtype", choices=DTYPES, help="dtype of activations, as predict"
  )
  g.add_argument(
    "--quantize",
    choices=QUANTIZATIONS,
    help="hold the kernels of the layers in 8 or 4 bits",
  )
  g = p.add_argument_group("AlphaEarth")
  g.add_argument(
    "--aef",
    nargs="+",
    metavar="SOURCE",
    help='archive for requests with "anchors": "aef": folders of GeoTIFFs,'
    " indexes (.csv, .parquet, .gpkg), rasters, URLs",
  )
  g.add_argument(
    "--year",
    type=int,
    help="year of the embeddings, if a request names none (default: the"
    " archive's latest)",
  )
  g = p.add_argument_group("page")
  g.add_argument(
    "--bands",
    metavar="BAND[,BAND]",
    help="what is shown at first of scenes that have these bands: what the"
    " model was trained on, as prepare --bands (default: a scene's first band)",
  )
  g = p.add_argument_group("server")
  g.add_argument(
    "--host",
    default="127.0.0.1",
    help="address to bind (default: %(default)s, this machine only)",
  )
  g.add_argument(
    "--port",
    type=int,
    default=8000,
    help="port, 0 for any free one (default: %(default)s)",
  )
  g.add_argument(
    "--token",
    help=f"bearer token that clients must send; {_TOKEN} does not show in the"
    " list of processes",
  )
  g.add_argument(
    "--slots",
    type=int,
    default=16,
    help="answers that decode together (default: %(default)s)",
  )
  g = p.add_argument_group("images by name")
  g.add_argument(
    "--allow-folder",
    nargs="+",
    default=[],
    metavar="DIR",
    help="folders in which clients may name images by path (default: none)",
  )
  g.add_argument(
    "--allow-host",
    nargs="+",
    default=[],
    metavar="HOST",
    help="hosts, NAME or NAME:PORT, from which images are fetched by https"
    " (default: none)",
  )
  g = p.add_argument_group("limits")
  for name, kind, default, about in (
    ("max-body-mib", float, 32, "body, MiB"),
    ("max-pixels", int, 2**24, "pixels of an image"),
    ("max-prompt-tokens", int, 4096, "tokens of a prompt, visual ones too"),
    ("max-new-tokens", int, MAX_NEW_TOKENS, "tokens of an answer"),
    ("max-queue", int, 128, "requests that wait for a slot"),
    ("timeout", float, 120, "seconds until the answer is complete"),
    ("max-cache-mib", float, 512, "kept for further questions, MiB"),
    ("max-files", int, 64, "uploaded files at a time"),
    ("max-file-mib", float, 256, "a file, uploaded or named, MiB"),
    ("max-files-mib", float, 1024, "all uploaded files, MiB"),
    ("max-scene-mib", float, 2048, "an image that is opened on the page, MiB"),
    (
      "file-idle",
      float,
      3600,
      "seconds after which an unused file or scene is deleted",
    ),
  ):
    g.add_argument(
      f"--{name}",
      type=kind,
      default=default,
      metavar="N",
      help=f"{about} (default: %(default)s)",
    )
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _serve, argv)


def _serve(args: argparse.Namespace) -> None:
  if args.year is not None and not args.aef:
    raise command_line.UsageError("--year without --aef does nothing.")
  if args.slots < 1:
    raise command_line.UsageError(f"--slots {args.slots}: at least 1.")
  # Needs no JAX either.
  from fusar_jax.geo.stretch import named_bands

  bands = () if args.bands is None else named_bands(args.bands)
  if len(bands) > 3 or not all(bands):
    raise command_line.UsageError(
      f"--bands {args.bands}: expected one band, two, or three."
    )
  try:
    # Slow: --help and usage errors need no JAX.
    from fusar_jax.serving.server import check_token, make_server
  except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in (
      "fastapi",
      "uvicorn",
      "python_multipart",
    ):
      raise
    raise ImportError(
      f"{error.name} is not installed: pip install 'fusar-jax[serve]'."
    ) from None
  from fusar_jax.hf.folders import local_model
  from fusar_jax.inference.load import load
  from fusar_jax.serving.file_store import FileLimits
  from fusar_jax.serving.limits import Limits
  from fusar_jax.serving.scenes import SceneLimits
  from fusar_jax.training.compile_cache import compile_cache

  token = args.token or os.environ.get(_TOKEN) or None
  check_token(args.host, token)
  limits = Limits(
    body_bytes=int(args.max_body_mib * 2**20),
    pixels=args.max_pixels,
    prompt_tokens=args.max_prompt_tokens,
    new_tokens=args.max_new_tokens,
    queue=args.max_queue,
    seconds=args.timeout,
    cache_bytes=int(args.max_cache_mib * 2**20),
  )
  file_limits = FileLimits(
    files=args.max_files,
    file_bytes=int(args.max_file_mib * 2**20),
    total_bytes=int(args.max_files_mib * 2**20),
    idle_seconds=args.file_idle,
  )
  alphaearth = _open_alphaearth(args)
  with compile_cache():
    model = local_model(args.model)
    assistant = load(
      model,
      args.adapter,
      args.legacy_sigma,
      image_size=args.image_size,
      mesh=args.mesh,
      dtype=args.dtype,
      quantize=args.quantize,
    )
    name = os.path.basename(os.path.normpath(str(args.model)))
    with make_server(
      assistant,
      name,
      host=args.host,
      port=args.port,
      slots=args.slots,
      token=token,
      limits=limits,
      alphaearth=alphaearth,
      file_limits=file_limits,
      folders=args.allow_folder,
      hosts=args.allow_host,
      scene_bytes=int(args.max_scene_mib * 2**20),
      scene_limits=SceneLimits(idle_seconds=args.file_idle),
      bands=bands,
    ) as (server, listening):
      port = listening.getsockname()[1]
      print(f"{name} answers at http://{args.host}:{port}/v1", flush=True)
      print(f"the page is http://{args.host}:{port}/", flush=True)
      server.run([listening])
  print("all requests are answered")


def _open_alphaearth(args: argparse.Namespace):
  if not args.aef:
    return None
  from fusar_jax.datasets.prepare.options import open_aef
  from fusar_jax.serving.anchors import AlphaEarth

  archive = open_aef(args.aef, args.year)(())  # For no scenes: all of it.
  return AlphaEarth(archive, args.year)


if __name__ == "__main__":
  sys.exit(main())
