"""The command `edgeclient compile`; what it needs beyond click is imported when it runs."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from edgeclient import files
from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.manifest import Optimiser
from edgeclient.commands.options import FILE, JSON
from edgeclient.compile import domain
from edgeclient.compile.errors import require_onnx


def _numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        return tuple(float(each) for each in value.split(","))
    except ValueError:
        raise click.BadParameter("numbers separated by commas are wanted, such as 1,2.5,1") from None


def _sizes(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> dict[str, int]:
    sizes = {}
    for each in value:
        name, _equals, size = each.partition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise click.BadParameter(f"{each!r}: NAME=SIZE is wanted, such as sequence=32")
        sizes[name] = int(size)
    return sizes


def _shapes(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for each in value:
        name, _equals, dims = each.rpartition("=")
        try:
            shapes[name] = tuple(int(dim) for dim in dims.split(","))
        except ValueError:
            name = ""
        if not name:
            raise click.BadParameter(f"{each!r}: INPUT=D,D,… is wanted, such as x=-1,3,48,192 (-1: the batch)")
    return shapes


def _bounds(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> dict[str, Bounds]:
    try:
        return dict(map(domain.parsed, value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("compile")
@click.argument("model", required=False, type=FILE)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder of ONNX Runtime training artifacts, instead of MODEL.",
)
@click.option("--out", required=True, type=FILE, help="The bundle to write.")
@click.option("--loss", default="cross_entropy", show_default=True, help="cross_entropy, mse, l1 or bce_with_logits.")
@click.option("--class-weights", callback=_numbers, metavar="W,W,…", help="Of cross_entropy, one a class.")
@click.option("--ignore-label", type=int, help="A label of cross_entropy that counts nothing, such as -100.")
@click.option(
    "--optimizer", type=click.Choice(["sgd", "adamw"]), help="Of the devices; default sgd, or what the artifacts say."
)
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Of sgd.")
@click.option("--weight-decay", type=click.FloatRange(0, 1), default=0.0, help="Of adamw, per unit of learning rate.")
@click.option(
    "--trainable", multiple=True, metavar="PATTERN", help="Train these parameters only, such as '*lora*'; repeatable."
)
@click.option("--frozen", multiple=True, metavar="PATTERN", help="Do not train these parameters; repeatable.")
@click.option(
    "--output", help="The value that the loss is put on: an output, or any inside, such as the input of a last Softmax."
)
@click.option(
    "--dim",
    "sizes",
    multiple=True,
    callback=_sizes,
    metavar="NAME=SIZE",
    help="A number for a named dimension; repeatable.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    callback=_shapes,
    metavar="INPUT=-1,D,…",
    help="The shape of an input whose dimensions have no names; repeatable.",
)
@click.option(
    "--batch-norm",
    type=click.Choice(["shared", "local", "frozen"]),
    default="shared",
    show_default=True,
    help="Running statistics: shared with the fleet, kept on each device, or left as they are.",
)
@click.option(
    "--bounds",
    multiple=True,
    callback=_bounds,
    metavar="PATTERN=LOW:HIGH",
    help="These tensors never leave LOW to HIGH, either of which may be empty: '*scale=0:'; repeatable."
    " Running variances are at least 0 anyway.",
)
@click.option("--licence", default="unknown", help="Of model and parameters, for the manifest.")
@click.option("--native", is_flag=True, help='Put the artifacts into the bundle too, for runtime = "native".')
@JSON
def compile_command(model: Path | None, artifacts: Path | None, out: Path, *, as_json: bool, **given: Any) -> None:
    """Make a bundle that devices can train, from a forward ONNX model. Runs on a workstation.

    MODEL goes from inputs with a free first dimension, the batch, to one output. The gradients come from ONNX
    Runtime training (extra [build]: x86-64, Python 3.11 or 3.12), are lowered to standard operators and checked
    against finite differences; devices then need no more than the plain onnxruntime.

    \b
    Example:
      edgeclient compile model.onnx --loss cross_entropy --optimizer adamw --out my.bundle
      edgeclient compile model.onnx --trainable '*lora*' --out adapters.bundle
      edgeclient compile --artifacts training_artifacts/ --out my.bundle
    """
    if (model is None) == (artifacts is None):
        raise click.UsageError("give either MODEL or --artifacts")
    require_onnx()
    from edgeclient.compile import advice, compiler, trial, verify  # noqa: PLC0415 (devices have no onnx)

    options = _options(given, model or artifacts)

    def tell(what: str) -> None:
        if not as_json and sys.stderr.isatty():
            click.echo(f"  {what} …", err=True)

    if model is not None:
        made = compiler.compile_model(compiler.load_model(model), options, tell)
    else:
        assert artifacts is not None
        made = compiler.compile_artifacts(artifacts, options, optimiser=_optimiser(given), tell=tell)
    tell("checking the gradients")
    report = verify.verify(made)
    notes = [*made.notes, *filter(None, [trial.killing_rate(made)])]
    content = made.packed()
    files.replace(out, content)
    told = {
        "bundle": str(out),
        "bytes": len(content),
        "parameters": made.manifest.layout.size,
        "trained": made.manifest.trained_size,
        "optimiser": made.manifest.optimiser.name,
        "loss": made.manifest.loss,
        "nodes": len(made.training.graph.node),
        "forward": made.skeleton is not None,
        "notes": notes,
        **report.as_json(),
    }
    if as_json:
        click.echo(json.dumps(told))
        return
    click.echo(f"{out}: {len(content)} bytes, {told['trained']} trained parameters, {told['nodes']} operators")
    click.echo(f"trained: {advice.listed([(each.name, each.shape) for each in made.manifest.trained])}")
    click.echo(report.text())
    for note in notes:
        click.echo(f"note: {note}")
    if not told["forward"]:
        why = "it began with training artifacts" if model is None else "what is trained is not in MODEL as it stands"
        click.echo(f"no forward graph in the bundle, so no export of what is learnt: {why}")


def _options(given: dict[str, Any], source: Path | None) -> Any:
    from edgeclient.compile.compiler import Options  # noqa: PLC0415 (needs onnx)
    from edgeclient.compile.loss import Loss  # noqa: PLC0415 (as above)

    as_given = ("frozen", "output", "sizes", "shapes", "batch_norm", "bounds", "licence", "native")
    return Options(
        loss=Loss(given["loss"], given["class_weights"], given["ignore_label"]),
        optimiser=_optimiser(given) or Optimiser(),
        trainable=given["trainable"] or ("*",),
        provenance=f"edgeclient compile {source.name if source else ''}".strip(),
        **{name: given[name] for name in as_given},
    )


def _optimiser(given: dict[str, Any]) -> Optimiser | None:
    name = given["optimizer"]
    if name is None and not (given["momentum"] or given["weight_decay"]):
        return None
    if (given["momentum"] and name == "adamw") or (given["weight_decay"] and name != "adamw"):
        raise click.UsageError("--momentum belongs to sgd, --weight-decay to adamw")
    return Optimiser(name or "sgd", momentum=given["momentum"], weight_decay=given["weight_decay"])
