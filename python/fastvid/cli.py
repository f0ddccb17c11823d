"""The command `fastvid`: arguments, exit codes, and errors as one line.

Only the standard library is imported here; a command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from fastvid._version import __version__
from fastvid.errors import BackendUnavailableError, FastvidError

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_EPILOG = """\
exit codes:
  0 done           1 unexpected      2 usage or arguments
  3 benchmark missed its mark
  4 input media    5 model           6 device or runtime
  7 output         8 cancelled       9 no picture came out
  10 export
  130 Ctrl-C       143 SIGTERM
"""

_OPTIONS = {
    "overwrite=True": "--overwrite",
    "bit_depth=8": "--to-8bit",
    'alpha="drop"': "--drop-alpha",
    'audio="drop"': "--no-audio",
    'subtitles="drop"': "--no-subtitles",
    "device='cpu'": "--device cpu",
    "device='cuda'": "--device cuda",
    "backend='onnxruntime'": "--backend onnxruntime",
    "low_memory=True": "--low-memory",
    "tile=": "--tile",
    "EngineOptions(sizes=...)": "--engine-size",
}
"""The command line's spelling of what hints say in Python's."""


class _UsageError(FastvidError):
    exit_code = EXIT_USAGE


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which stops work the way Ctrl-C does."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(message, hint=f"see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        The exit code; see `fastvid --help`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json, debug = "--json" in arguments, "--debug" in arguments
    try:
        options = build_parser(arguments).parse_args(arguments)
        with _stoppable():
            command: Callable[[argparse.Namespace], int] = options.command
            code = command(options)
            sys.stdout.flush()
            return code
    except FastvidError as error:
        return _failed(error, error.exit_code, as_json, debug)
    except _Terminated:
        return _stopped("terminated", EXIT_TERMINATED, as_json)
    except KeyboardInterrupt:
        return _stopped("interrupted", EXIT_INTERRUPTED, as_json)
    except BrokenPipeError:
        # Whoever read the output has left; keep the interpreter from flushing into the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNEXPECTED
    except Exception as error:
        if debug:
            raise
        unexpected = FastvidError(
            f"unexpected {type(error).__name__}: {error}", hint="--debug shows where"
        )
        return _failed(unexpected, EXIT_UNEXPECTED, as_json, debug)


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        arguments: What it will parse. Where they name a command of fastvid itself, those of other
            packages are not looked for, which takes longer than all the rest.
    """
    parser = _Parser(
        prog="fastvid",
        description="More frames and more pixels for videos, through trained networks.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastvid {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser
    )

    def add(name: str, text: str) -> Any:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=_command(name))
        return sub

    _upscale_arguments(add("upscale", "Make a video larger."))
    _restore_arguments(add("restore", "Denoise, deblock and sharpen a video at its own size."))
    _interpolate_arguments(add("interpolate", "Raise the frame rate of a video."))
    _generate_arguments(add("generate", "Draw a video from a text."))
    _run_arguments(add("run", "Interpolate and upscale in one pass over the file."))
    _demo_arguments(
        add("demo", "Show all models: restore a drawn scene and measure, draw from a text.")
    )
    _bench_arguments(add("bench", "Measure models on this machine."))
    models = add("models", "List the models that are installed.")
    models.add_argument("--verify", action="store_true", help="check the sha256 of every file")
    _common_arguments(models)
    _engines_arguments(add("engines", "List the TensorRT engines that are cached, or remove them."))
    _common_arguments(add("doctor", "Show what runs where on this machine, and why."))
    first = next((text for text in arguments if not text.startswith("-")), None)
    if first not in commands.choices:
        for name, point in _other_commands().items():
            if name not in commands.choices:
                _add_other(commands, name, point)
    return parser


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None


def _other_commands() -> dict[str, Any]:
    """Commands that installed packages bring, as entry points of the group `fastvid.commands`."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group="fastvid.commands")}


def _add_other(commands: Any, name: str, point: Any) -> None:
    """Adds a command from elsewhere: its module has TEXT, `add_arguments` and `run`."""
    try:
        module = point.load()
    except Exception as error:
        # A broken package must not take the other commands along.
        problem = f"{name}: cannot be loaded from {point.value}: {error}"

        def refuse(options: argparse.Namespace) -> NoReturn:
            raise BackendUnavailableError(problem, hint="pip install 'fastvid-sdk[cpu,export]'")

        commands.add_parser(name, help="cannot be loaded").set_defaults(command=refuse)
        return
    sub = commands.add_parser(name, help=module.TEXT, description=module.TEXT, allow_abbrev=False)
    sub.set_defaults(command=module.run)
    module.add_arguments(sub)


def _engines_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clear", action="store_true", help="remove all engines of the cache")
    parser.add_argument("--cache", metavar="FOLDER", help="another cache folder")
    _common_arguments(parser)


def _upscale_arguments(parser: argparse.ArgumentParser) -> None:
    _file_arguments(parser)
    parser.add_argument(
        "--scale", type=_whole_number, default=2, metavar="N", help="factor (default 2)"
    )
    parser.add_argument("--model", default="fast", help="shipped name or folder (default fast)")
    _tile_argument(parser)
    _work_arguments(parser)


def _restore_arguments(parser: argparse.ArgumentParser) -> None:
    _file_arguments(parser)
    parser.add_argument("--model", default="real", help="shipped name or folder (default real)")
    _tile_argument(parser)
    _work_arguments(parser)


def _interpolate_arguments(parser: argparse.ArgumentParser) -> None:
    _file_arguments(parser)
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--factor", type=_whole_number, metavar="N", help="times the frames (default 2)"
    )
    rate.add_argument("--fps", metavar="RATE", help="constant rate, such as 60 or 60000/1001")
    parser.add_argument("--model", default="fast", help="shipped name or folder (default fast)")
    _cut_argument(parser)
    _work_arguments(parser)


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _file_arguments(parser)
    _chain_arguments(parser)
    _work_arguments(parser)


def _chain_arguments(parser: argparse.ArgumentParser) -> None:
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--interpolate", type=_whole_number, metavar="N", help="times the frames")
    rate.add_argument("--fps", metavar="RATE", help="constant rate, such as 60 or 60000/1001")
    parser.add_argument("--upscale", type=_whole_number, metavar="N", help="factor of both sides")
    _model_arguments(parser)
    _tile_argument(parser)
    _cut_argument(parser)


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what to draw")
    parser.set_defaults(input=None, no_audio=False, no_subtitles=False)
    parser.add_argument(
        "-o", "--output", default="generated.mp4", metavar="OUT", help="default generated.mp4"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    parser.add_argument("--model", default="tiny", help="shipped name or folder (default tiny)")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what to lead away from")
    parser.add_argument("--image", metavar="FILE", help="first frame, a PNG or JPEG")
    parser.add_argument("--last-image", metavar="FILE", help="last frame, with --image")
    parser.add_argument("--video", metavar="FILE", help="clip to continue, or to redraw")
    parser.add_argument(
        "--strength", type=float, metavar="0-1", help="how much of --video to redraw"
    )
    for name in ("height", "width"):
        parser.add_argument(f"--{name}", type=int, metavar="N", help="pixels")
    parser.add_argument("--num-frames", type=int, metavar="N", help="frames to draw")
    parser.add_argument("--frame-rate", metavar="RATE", help="frames per second of those")
    parser.add_argument("--num-inference-steps", type=int, metavar="N", help="solver steps")
    parser.add_argument("--guidance-scale", type=float, metavar="X", help="1 is none")
    parser.add_argument(
        "--guidance-scale-2", type=float, metavar="X", help="of a model's second transformer"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="default drawn, and printed")
    parser.add_argument("--noise", metavar="NAME", help="philox (default) or torch-cpu")
    parser.add_argument("--scheduler", metavar="NAME", help="class in fastvid.schedulers")
    parser.add_argument("--flow-shift", type=float, metavar="X", help="of the noise levels")
    parser.add_argument("--preview", metavar="PNG", help="also write a contact sheet")
    _codec_arguments(parser)
    _chain_arguments(parser)
    _work_arguments(parser)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        default="fastvid-demo.mp4",
        metavar="FILE",
        help="side-by-side video (default fastvid-demo.mp4)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    parser.add_argument("--picture", metavar="PNG", help="also write one frame side by side")
    parser.add_argument("--seconds", type=float, default=2.0, help="length (default 2)")
    parser.add_argument("--size", default="640x360", metavar="WxH", help="default 640x360")
    parser.add_argument("--seed", type=int, default=0, help="chooses the scene (default 0)")
    parser.add_argument(
        "--generate-model", default="tiny", metavar="MODEL", help="shipped name or folder (tiny)"
    )
    _model_arguments(parser)
    _device_arguments(parser)
    _common_arguments(parser)


def _file_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", help="video file or folder of images")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="video file or folder for PNG images; by default named after the input, beside it",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    parser.add_argument(
        "--input-fps", metavar="RATE", help="frame rate of images and of files that state none"
    )
    parser.add_argument(
        "--stream", type=int, metavar="N", help="video stream (default the largest)"
    )
    parser.add_argument("--strict", action="store_true", help="refuse cut or damaged input")
    parser.add_argument("--to-8bit", action="store_true", help="round SDR of more than 8 bits to 8")
    parser.add_argument("--drop-alpha", action="store_true", help="ignore transparency")
    _codec_arguments(parser)
    parser.add_argument("--no-audio", action="store_true", help="leave audio tracks out")
    parser.add_argument("--no-subtitles", action="store_true", help="leave subtitle tracks out")


def _codec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--codec", choices=("h264", "hevc", "av1", "lossless"), help="video codec")
    parser.add_argument("--quality", type=int, metavar="0-100", help="picture quality (default 75)")
    parser.add_argument("--effort", choices=("fast", "medium", "slow"), help="encoding effort")


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    for task in ("interpolate", "upscale"):
        parser.add_argument(
            f"--{task}-model",
            default="fast",
            metavar="MODEL",
            help="shipped name or folder (default fast)",
        )


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="shipped name or folder (default all shipped)"
    )
    parser.add_argument("--input", metavar="CLIP", help="video or folder (default a drawn scene)")
    parser.add_argument(
        "--formats",
        metavar="LIST",
        help="onnx-cpu, onnx-cuda, engine; commas between (default all)",
    )
    parser.add_argument(
        "--size", action="append", metavar="WxH", help="may be repeated (default 1280x720)"
    )
    parser.add_argument("--reference", metavar="MODEL", help="float32 model to compare with")
    for name, kind, default, text in (
        ("seconds", float, 3.0, "time of the calls of a row, at least (default 3)"),
        ("min-samples", int, 30, "calls of a row, at least (default 30)"),
        ("max-seconds", float, None, "end of a row with less calls (default 5 times --seconds)"),
        ("processes", int, 3, "processes of a row, one after the other (default 3)"),
        ("timeout", float, 900.0, "seconds for one step of a row (default 900)"),
        ("threads", int, None, "CPU threads of each network"),
        ("num-inference-steps", int, None, "solver steps of generators"),
        ("num-frames", int, None, "frames of generators"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=text)
    parser.add_argument("--prompt", metavar="TEXT", help="what generators draw")
    parser.add_argument(
        "--sequential", action="store_true", help="one row after the other, not in turns"
    )
    parser.add_argument(
        "--output", "-o", action="append", metavar="FILE", help=".json or .md; may be repeated"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    parser.add_argument(
        "--assert",
        dest="bounds",
        action="append",
        metavar="BOUNDS",
        help="such as 'p99<33 psnr>40'; exit code 3 where a row misses one",
    )
    parser.add_argument(
        "--compare", nargs=2, metavar=("A.json", "B.json"), help="ratios of two results"
    )
    _common_arguments(parser)


def _cut_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-scene-cuts", action="store_true", help="blend across scene cuts too")
    parser.add_argument(
        "--duplicates",
        choices=("keep", "merge"),
        default="keep",
        help="merge: draw frames that repeat the one before anew, for telecine and animation",
    )


def _tile_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile",
        default="auto",
        metavar="N",
        help="pixels of the pieces that frames are upscaled in, auto or none (default auto)",
    )


def _work_arguments(parser: argparse.ArgumentParser) -> None:
    _device_arguments(parser)
    parser.add_argument("--low-memory", action="store_true", help="less memory, more time")
    parser.add_argument(
        "--cuda-graphs", action="store_true", help="record work on CUDA once and repeat it"
    )
    parser.add_argument("--plan", action="store_true", help="say what memory it needs, and stop")
    _common_arguments(parser)


def _device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--backend", default="auto", help="auto, onnxruntime, openvino or tensorrt")
    parser.add_argument(
        "--engine-size",
        action="append",
        metavar="SIZE",
        help="frames to build TensorRT engines for: 720p, 1080p, 2160p, 1920x800; may be repeated",
    )
    parser.add_argument("--precision", default="auto", help="auto, or what the backend offers")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of each network")


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")
    parser.add_argument("--debug", action="store_true", help="show the traceback of errors")


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """The command `name`; its module is imported when it runs, so that help stays instant."""

    def run(options: argparse.Namespace) -> int:
        from fastvid import _commands

        code: int = getattr(_commands, name)(options)
        return code

    return run


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise in the main thread while the command runs, so that it cleans up."""
    raised: list[KeyboardInterrupt] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raised.append(_Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        raise raised[-1]

    numbers = [signal.SIGTERM]
    # Who ignores Ctrl-C, as nohup does, or handles it, goes on doing so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    try:
        previous = [(number, signal.signal(number, stop)) for number in numbers]
    except ValueError:
        # Signal handlers belong to the main thread; elsewhere the caller handles them.
        yield
        return
    try:
        yield
    except Exception:
        # Extensions that are imported or initialised meanwhile turn an interruption into an error.
        if raised:
            raise raised[-1] from None
        raise
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


def _failed(error: FastvidError, code: int, as_json: bool, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    hint = error.hint
    for python, option in _OPTIONS.items():
        hint = hint.replace(python, option)
    if as_json:
        kind = "UsageError" if isinstance(error, _UsageError) else type(error).__name__
        body = {"type": kind, "message": error.message, "hint": hint, "exit_code": code}
        print(json.dumps({"error": body}), flush=True)
    else:
        print(f"fastvid: error: {_one_line(error.message)}", file=sys.stderr)
        if hint:
            print(f"hint: {_one_line(hint)}", file=sys.stderr)
    return code


def _stopped(word: str, code: int, as_json: bool) -> int:
    if as_json:
        body = {"type": "CancelledError", "message": word, "hint": "", "exit_code": code}
        print(json.dumps({"error": body}), flush=True)
    else:
        print(f"fastvid: {word}", file=sys.stderr)
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split())
