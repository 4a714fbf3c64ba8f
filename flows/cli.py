"""The `tandem` command: each subcommand runs a flow or reads a registry.

Only what `--help` needs is imported here; everything else is imported by the subcommand that uses it.
"""

import errno
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flows.printing import (
    print_advised,
    print_answer,
    print_curated,
    print_demo,
    print_diagnosed,
    print_evaluated,
    print_finetune,
    print_housekeeping,
    print_monitored,
    print_night,
    print_passages,
    print_release,
    print_schedules,
    print_services,
    print_shadowed,
    print_table,
)
from tasks.config.servers import reach
from tasks.config.services import log_of, read_services, use_services
from tasks.config.settings import Home, find_home
from tasks.environment import (
    forget_environment,
    leave_prefect_files_alone,
    prepare_environment,
    user_name,
)
from tasks.errors import ConfigError, RefusedError, ServerError, SourceError, TandemError

if TYPE_CHECKING:
    from tasks.answering.service.keys import Key
    from tasks.automations import Installed
    from tasks.config.deployments import DeploymentsConfig
    from tasks.config.service import ServiceConfig
    from tasks.config.services import Service
    from tasks.records import (
        Advised,
        Answer,
        Curated,
        Diagnosed,
        Evaluated,
        Finetune,
        Housekeeping,
        Monitored,
        Move,
        Night,
        Released,
        Shadowed,
    )

app = typer.Typer(
    name="tandem",
    help="Indexes and adapters of language models in production: kept fresh, measured, rolled back together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
golden = typer.Typer(help="Golden queries, which every version of an index is scored with.", no_args_is_help=True)
app.add_typer(golden, name="golden")
keys = typer.Typer(help="Keys of those who may ask `tandem serve`; a file holds their hashes.", no_args_is_help=True)
app.add_typer(keys, name="keys")

Result = TypeVar("Result")
Name = Annotated[str, typer.Argument(help="Name of the index.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the ledger.")]
ROOT = Path(__file__).resolve().parents[1]
DEPLOYMENTS = ROOT / "conf" / "deployments.yaml"
SPACE_AND_PERMISSION = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def main() -> None:
    """Run the command; expected failures become a message and an exit status, never a traceback."""
    warnings.simplefilter("ignore", FutureWarning)  # what libraries tell those who write code
    try:
        app()
    except RefusedError as error:
        _fail(error, 1)
    except TandemError as error:
        _fail(error, 2 if isinstance(error, (ConfigError, SourceError)) else 1)
    except OSError as error:
        if error.errno not in SPACE_AND_PERMISSION:
            raise
        place, what = error.filename or find_home().root, os.strerror(error.errno)
        _fail(f"{place}: {what}; free space or mend the permissions, then run again: what was kept is not lost", 1)
    except KeyboardInterrupt:
        _fail("stopped; the next run goes on from what was already written", 130)


@app.callback()
def _begin(context: typer.Context) -> None:
    if context.invoked_subcommand != "demo":  # which has a home of its own
        _prepare(find_home())


def _prepare(home: Home) -> None:
    prepare_environment(home)
    use_services(home)
    # before Prefect is imported, which would print every error's traceback beside our own sentence
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    leave_prefect_files_alone()


@app.command()
def reindex(
    config: Annotated[Path, typer.Argument(help="A file under conf/index/.")],
    allow_deletions: Annotated[
        bool, typer.Option(help="For this run, follow deletions even where a source looks broken.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Re-index documents, score the result, and put it live if it is no worse."""
    from tasks.config.index import ReindexConfig
    from tasks.config.loading import load_config

    loaded = load_config(config, ReindexConfig)

    def call() -> "Night":
        from flows.reindex import reindex as flow

        return flow(loaded, allow_deletions)

    _close(_run(call), as_json, print_night, "promote", "unchanged")


@app.command()
def sft(config: Annotated[Path, typer.Argument(help="A file under conf/sft/.")], as_json: Json = False) -> None:
    """Fine-tune an adapter on examples, score it, and put it live if it is worth it."""
    from tasks.config.loading import load_config
    from tasks.config.training import SftConfig

    loaded = load_config(config, SftConfig)

    def call() -> "Finetune":
        from flows.finetune_sft import finetune_sft

        return finetune_sft(loaded)

    _close(_run(call), as_json, print_finetune, "promote")


@app.command()
def dpo(config: Annotated[Path, typer.Argument(help="A file under conf/dpo/.")], as_json: Json = False) -> None:
    """Fine-tune an adapter on preferences, score it, and put it live if it is worth it."""
    from tasks.config.loading import load_config
    from tasks.config.training import DpoConfig

    loaded = load_config(config, DpoConfig)

    def call() -> "Finetune":
        from flows.finetune_dpo import finetune_dpo

        return finetune_dpo(loaded)

    _close(_run(call), as_json, print_finetune, "promote")


@app.command()
def release(config: Annotated[Path, typer.Argument(help="A file under conf/release/.")], as_json: Json = False) -> None:
    """Bind index, adapter, prompt and policy into one version, measure it, and put it live if it is no worse."""
    from tasks.config.answering import ReleaseConfig
    from tasks.config.loading import load_config

    loaded = load_config(config, ReleaseConfig)

    def call() -> "Released":
        from flows.release import release as flow

        return flow(loaded)

    _close(_run(call), as_json, print_release, "promote", "unchanged")


@app.command()
def evaluate(
    config: Annotated[Path, typer.Argument(help="A file under conf/suites/answers/.")], as_json: Json = False
) -> None:
    """Ask releases the questions of a suite, and say at which stage of an answer they fail."""
    from tasks.config.evaluation import AnswersConfig
    from tasks.config.loading import load_config

    loaded = load_config(config, AnswersConfig)

    def call() -> "Evaluated":
        from flows.evaluate import evaluate as flow

        return flow(loaded)

    _close(_run(call), as_json, print_evaluated, "passed")


@app.command()
def shadow(config: Annotated[Path, typer.Argument(help="A file under conf/shadow/.")], as_json: Json = False) -> None:
    """Ask two releases again what people asked, and stop once it is clear whether one is worse."""
    from tasks.config.loading import load_config
    from tasks.config.shadow import ShadowConfig

    loaded = load_config(config, ShadowConfig)

    def call() -> "Shadowed":
        from flows.shadow import shadow as flow

        return flow(loaded)

    _close(_run(call), as_json, print_shadowed, "no worse")


@app.command()
def advise(case: Annotated[Path, typer.Argument(help="A file under conf/cases/.")], as_json: Json = False) -> None:
    """Retrieval, fine-tuning, or both: scores, costs, and what would change the answer, for a workload."""
    from tasks.config.advice import CaseConfig
    from tasks.config.loading import load_config

    loaded = load_config(case, CaseConfig)

    def call() -> "Advised":
        from flows.advise import advise as flow

        return flow(loaded)

    _close(_run(call), as_json, print_advised, "retrieval", "fine-tuning", "both")


@app.command()
def monitor(config: Annotated[Path, typer.Argument(help="A file under conf/monitor/.")], as_json: Json = False) -> None:
    """Say whether people ask something else, get worse answers, or get them from stale parts."""
    from tasks.config.loading import load_config
    from tasks.config.monitoring import MonitorConfig

    loaded = load_config(config, MonitorConfig)

    def call() -> "Monitored":
        from flows.monitor import monitor as flow

        return flow(loaded)

    _close(_run(call), as_json, print_monitored, "quiet")


@app.command()
def diagnose(
    config: Annotated[Path, typer.Argument(help="A file under conf/diagnose/.")], as_json: Json = False
) -> None:
    """Say of every answer that fails why, and what the cheapest fix is."""
    from tasks.config.diagnosis import DiagnoseConfig
    from tasks.config.loading import load_config

    loaded = load_config(config, DiagnoseConfig)

    def call() -> "Diagnosed":
        from flows.diagnose import diagnose as flow

        return flow(loaded)

    done = _run(call)
    _show(as_json, asdict(done), lambda: print_diagnosed(done))


@app.command()
def curate(config: Annotated[Path, typer.Argument(help="A file under conf/curate/.")], as_json: Json = False) -> None:
    """Make data sets of what people said of answers: read what you decided, draft new rows, fine-tune if enough."""
    from tasks.config.curation import CurateConfig
    from tasks.config.loading import load_config

    loaded = load_config(config, CurateConfig)

    def call() -> "Curated":
        from flows.curate import curate as flow

        return flow(loaded)

    _close(_run(call), as_json, print_curated, "new versions", "waits", "nothing new")


@app.command()
def ask(
    name: Annotated[str, typer.Argument(help="Name of the release.")],
    question: Annotated[
        str | None, typer.Argument(help="What to answer; a conversation, or the lines of standard input, if none.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Only from what this tenant may see.")] = "",
    version: Annotated[int, typer.Option(min=0, help="A version other than the live one.")] = 0,
    schema: Annotated[Path | None, typer.Option(help="A file with the JSON schema that the answer shall fit.")] = None,
    as_json: Json = False,
) -> None:
    """Ask the live release, or another: an answer with its sources, or a refusal (exit status 1).

    Without a question, what is typed on a terminal is a conversation, which an empty line or Ctrl-D ends; of other
    standard input each line is a question by itself, and with --json each answer a line.
    """
    from tasks.answering.structured import read_schema
    from tasks.releases import open_release

    wanted = read_schema(schema) if schema else None
    assistant = open_release(name, version or "champion", find_home())

    def answer(text: str, earlier: Sequence[dict[str, str]] = ()) -> "Answer":
        given = assistant.answer(text, tenant or None, earlier=earlier, schema=wanted)
        _show(as_json, asdict(given), lambda: print_answer(given))
        sys.stdout.flush()
        return given

    if question is not None:
        refused = answer(question).refused
    elif sys.stdin.isatty():
        print(f"{assistant.versions['release']} answers; an empty line or Ctrl-D ends", file=sys.stderr)
        _converse(answer, "? " if sys.stdout.isatty() and not as_json else "")
        refused = False
    else:
        every = [answer(each).refused for each in _questions()]
        refused = any(every)
    raise typer.Exit(1 if refused else 0)


@app.command()
def serve(
    name: Annotated[str, typer.Argument(help="Name of the release.")],
    config: Annotated[Path | None, typer.Option(help="Its settings; conf/service/RELEASE.yaml, if there.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on, instead of the settings'.")] = "",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The port, instead of the settings'.")] = None,
    as_json: Json = False,
) -> None:
    """Answer over HTTP in OpenAI's protocol, always with the version that is live."""
    from tasks.serve import Service, serve

    def started(service: Service, address: str) -> None:
        versions = dict(service.live.assistant.versions)
        told = {"address": address, "versions": versions, "keys": len(service.keys.all()), "open": service.open}
        shown = ", ".join(filter(None, versions.values()))
        who = "everybody on this machine" if service.open else f"{told['keys']} keys"
        _show(as_json, told, lambda: print(f"{shown} answers at {address}/v1 to {who}"))
        sys.stdout.flush()

    changes = {"host": host or None, "port": port}
    serve(name, _service_config(name, config, changes), find_home(), started)


@app.command()
def search(
    name: Name,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Passages to show.")] = 5,
    mode: Annotated[str, typer.Option(help="vector, text or hybrid; as the version was scored, if empty.")] = "",
    tenant: Annotated[str, typer.Option(help="Only what this tenant may see.")] = "",
    version: Annotated[int, typer.Option(min=0, help="A version other than the live one.")] = 0,
    context: Annotated[int, typer.Option(min=0, help="Characters to show around each passage, in its place.")] = 0,
    as_json: Json = False,
) -> None:
    """Ask the live version, or another."""
    from tasks.converted import in_place
    from tasks.index.search import Filters
    from tasks.serving import passage_as_json, reader_of

    if mode not in ("", "vector", "text", "hybrid"):
        raise ConfigError(f"--mode {mode} is unknown: use vector, text or hybrid")
    reader = reader_of(name, version or "champion", find_home())
    found = reader.search([query], k=k, mode=mode or None, filters=Filters(tenant=tenant or None))[0]  # type: ignore[arg-type]
    passages = [passage_as_json(passage) for passage in found]
    if context:
        for shown, passage in zip(passages, found, strict=True):
            shown["in_place"] = in_place(passage, context, find_home())
    _show(as_json, {"query": query, "passages": passages}, lambda: print_passages(passages))


@app.command()
def up(
    config: Annotated[Path, typer.Argument(help="The deployments.")] = DEPLOYMENTS,
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, envvar="TANDEM_MLFLOW_PORT", help="5000, or as it was before.")
    ] = None,
    prefect_port: Annotated[
        int | None, typer.Option(min=1, max=65535, envvar="TANDEM_PREFECT_PORT", help="4200, or as it was before.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start MLflow, Prefect, its database, a worker for each work pool and the deployments; what runs already stays."""
    from tasks.config.deployments import load_deployments
    from tasks.registry.locations import check_locations
    from tasks.services import up as start

    check_locations(find_home())
    loaded = load_deployments(config)
    kept: list[str] = []
    services = start(find_home(), loaded, ROOT, {"mlflow": mlflow_port, "prefect": prefect_port}, kept.append)
    _tell_of_clocks(loaded)  # only now may Prefect be imported
    for note in filter(None, (service.note for service in services.values())):
        print(f"tandem: {note}", file=sys.stderr)
    rows = _service_rows(services)
    _show(as_json, {"services": rows, "kept": kept}, lambda: print("\n".join(kept), end="\n" * bool(kept)))
    if not as_json:
        print_services(rows)


@app.command()
def down(as_json: Json = False) -> None:
    """End what `tandem up` started here, and nothing else; interrupted runs with retries go on at the next `up`."""
    from tasks.services import down as end

    names = end(find_home())
    _show(as_json, {"ended": names}, lambda: print(f"ended {', '.join(names)}" if names else "Nothing was running."))


@app.command()
def watch() -> None:
    """Recover crashed runs, and make the release that follows when a part goes live; `tandem up` starts it by itself.

    A Prefect server that you run yourself needs it once; PREFECT_API_URL names the server.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ServerError(
            "there is no Prefect server to watch: `tandem up` starts one, or name yours in PREFECT_API_URL"
        )
    import logging

    from tasks.logs import log_to_standard_error
    from tasks.watch import watch as look_on

    log_to_standard_error(dict.fromkeys(("tasks.watch", "tasks.recover", "tasks.follow"), logging.INFO))
    look_on(find_home())


@app.command()
def status(as_json: Json = False) -> None:
    """What is live, what waits, what is held; whether the services of `tandem up` run, and the schedules work."""
    from tasks.headline import page_of
    from tasks.health import examine_health
    from tasks.registry.connection import connect
    from tasks.registry.pointers import pointers
    from tasks.registry.versions import list_names

    home = find_home()
    services, health = _service_rows(read_services(home)), examine_health(home)
    if not as_json:
        print_services(services)
        print_schedules(health.schedules, health.troubles)
    client = connect(home)
    rows = [{"name": name, **asdict(pointers(client, name))} for name in list_names(client)]
    rows = [row | {"page": page_of(row["name"], row["champion"] or row["candidate"], home)} for row in rows]
    columns = ["name", "champion", "candidate", "previous", "hold", "page"]

    def show() -> None:
        print_table(columns, [[row[c] for c in columns] for row in rows])
        print(f"\n{_gib(health.free_bytes)} free on the disk of {home.root}")

    _show(
        as_json,
        {
            "models": rows,
            "services": services,
            "schedules": [asdict(schedule) for schedule in health.schedules],
            "issues": [asdict(issue) for issue in health.troubles],
            "free_bytes": health.free_bytes,
        },
        show,
    )
    raise typer.Exit(1 if health.troubles else 0)


@app.command()
def history(
    name: Name,
    at: Annotated[str, typer.Option(help="What was live then? Such as 2026-11-20T08:00, local time.")] = "",
    as_json: Json = False,
) -> None:
    """Every move of the index's pointers: when, by whom and why."""
    from tasks.registry import ledger
    from tasks.registry.connection import connect

    client = connect(find_home())
    if at:
        live = ledger.live_at(client, name, _moment(at))
        text = f"version {live} of {name} was live" if live else f"no version of {name} was live"
        _show(as_json, {"name": name, "at": at, "live": live}, lambda: print(f"At {at} {text}."))
        return
    moves = ledger.history(client, name)
    columns = ["at", "what", "from", "to", "by", "why"]
    rows = [[_local(m.at), m.what, m.before, m.after, m.by, m.reason] for m in moves]
    _show(as_json, {"moves": [asdict(move) for move in moves]}, lambda: print_table(columns, rows))


@app.command()
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(min=1, help="The version to put live.")],
    reason: Reason = "promoted by hand",
    as_json: Json = False,
) -> None:
    """Put a version live, once it is proven to load and answer."""
    from tasks.promote import is_live, promote_by_hand

    was_live = is_live(name, version, find_home())
    move = promote_by_hand(name, version, user_name(), reason, find_home())
    _show_move(as_json, move, "is live already: nothing was moved" if was_live else "went live")


@app.command()
def rollback(
    name: Name,
    to: Annotated[int, typer.Option(min=0, help="The version to go back to; the one live before, if not given.")] = 0,
    reason: Reason = "rolled back by hand",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only prove that it can be done.")] = False,
    as_json: Json = False,
) -> None:
    """Put an earlier version live at once, and hold the index until `tandem unhold`."""
    from tasks.promote import roll_back

    move = roll_back(name, to or None, user_name(), reason, dry_run, find_home())
    _show_move(as_json, move, "would go live: it loads and answers" if dry_run else "is live, and the index is held")


@app.command()
def unhold(name: Name, reason: Reason = "hold lifted by hand", as_json: Json = False) -> None:
    """Lift the hold, so that the next good version may go live."""
    from tasks.promote import lift_hold

    move = lift_hold(name, user_name(), reason, find_home())
    text = f"{name} is no longer held" if move else f"{name} was not held"
    _show(as_json, {"name": name, "was_held": move is not None}, lambda: print(text))


@app.command()
def collect(
    name: Name,
    keep: Annotated[int, typer.Option(min=1, help="Newest versions to keep, beside those that are protected.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Delete old versions and free their space; what is live, previous, waiting or kept stays."""
    from tasks.garbage import collect_versions

    result = collect_versions(name, keep, dry_run, find_home())
    _show(as_json, result, lambda: print(_collected(result, dry_run)))


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of the index, the adapter or the release.")],
    version: Annotated[int, typer.Argument(min=1, help="The version to remove.")],
    as_json: Json = False,
) -> None:
    """Delete one version with its files; refused for what is live, previous, waiting, kept or part of a release."""
    from tasks.garbage import remove_version

    freed = remove_version(name, version, find_home())
    result = {"deleted": [version], "freed_bytes": freed}
    _show(as_json, result, lambda: print(_collected(result, dry_run=False)))


@app.command()
def maintain(
    config: Annotated[Path, typer.Argument(help="Such as conf/maintain.yaml.")],
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, only say what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what is beyond retention and mend what does not fit; exit status 1 where something is wrong still."""
    from tasks.config.loading import load_config
    from tasks.config.maintenance import MaintainConfig

    loaded = load_config(config, MaintainConfig)
    chosen = loaded.model_copy(update={"apply": loaded.apply or apply})

    def call() -> "Housekeeping":
        from flows.maintain import maintain as flow

        return flow(chosen)

    _close(_run(call), as_json, print_housekeeping, "in order")


@app.command()
def deploy(
    config: Annotated[Path, typer.Argument(help="The deployments.")] = DEPLOYMENTS,
    reset: Annotated[bool, typer.Option("--reset", help="Undo what people changed in Prefect's page.")] = False,
    as_json: Json = False,
) -> None:
    """Register deployments, schedules and automations on the Prefect server (PREFECT_API_URL)."""
    from tasks.config.deployments import load_deployments
    from tasks.health import examine_surroundings

    loaded = load_deployments(config)

    def call() -> tuple[list[str], "Installed"]:
        from tasks.deploy import deploy_all

        return deploy_all(loaded, ROOT, reset)

    names, automations = _run(call)
    _tell_of_clocks(loaded)
    issues = examine_surroundings(find_home()).troubles
    told = {"deployments": names, "automations": asdict(automations), "issues": [asdict(issue) for issue in issues]}
    lines = [*names, *automations.told(), *(f"{issue.what}\n    {issue.remedy}" for issue in issues)]
    _show(as_json, told, lambda: print("\n".join(lines)))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check pointers, versions, tables, runs, the ledger, services and schedules; print the command that mends each."""
    from tasks.doctor import examine, left_alone
    from tasks.health import examine_surroundings

    findings, others = [*examine(find_home()), *examine_surroundings(find_home()).troubles], left_alone(find_home())
    lines = [f"{finding.what}\n    {finding.remedy}" for finding in findings] or ["Everything is in order."]
    _show(
        as_json,
        {"findings": [asdict(finding) for finding in findings], "left_alone": others},
        lambda: print("\n".join([*lines, *others])),
    )
    raise typer.Exit(1 if findings else 0)


@app.command()
def mend(name: Name, as_json: Json = False) -> None:
    """Close abandoned runs, write moves made by hand to the ledger, protect live versions again."""
    from tasks.mend import mend_all

    done = mend_all(name, find_home())
    _show(as_json, {"done": done}, lambda: print("\n".join(done) or "Nothing to mend."))


@app.command()
def relocate(as_json: Json = False) -> None:
    """Once this home was copied, moved or restored elsewhere: let its records name its own files."""
    from tasks.relocate import relocate as move

    done = move(find_home())
    _show(as_json, {"done": done}, lambda: print("\n".join(done) or "Everything lies in this home."))


@app.command()
def demo(as_json: Json = False) -> None:
    """An index over four nights, an adapter over three fine-tunes, a release under fire, rollbacks: in data/demo."""
    import shutil

    folder = ROOT / "data" / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    home = Home(folder)
    forget_environment()
    os.environ["TANDEM_HOME"] = str(folder)
    os.chdir(ROOT)
    _prepare(home)

    def call() -> dict[str, Any]:
        from flows.demo import run_demo

        return run_demo(ROOT, home, lambda text: print(f"» {text}", file=sys.stderr, flush=True))

    result = _run(call)
    _show(as_json, result, lambda: print_demo(result, folder.relative_to(ROOT)))


Settings = Annotated[Path | None, typer.Option("--config", help="The service's settings, which name the file.")]


@keys.command("add")
def keys_add(
    owner: Annotated[str, typer.Argument(help="Whose key it is, for people.")],
    tenant: Annotated[str, typer.Option(help="The only tenant whose passages it reaches; everybody's, if empty.")] = "",
    right: Annotated[
        list[str] | None, typer.Option(help="What it may do, again for each: chat, search, feedback, monitor.")
    ] = None,
    per_minute: Annotated[
        int | None, typer.Option(min=0, help="Requests in a minute, 0 for any number, instead of the settings'.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=0, help="Requests at the same time, 0 for any number, instead of the settings'.")
    ] = None,
    config: Settings = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown this once, and kept nowhere; by default it may chat, search and give feedback."""
    from tasks.answering.service.keys import add_key

    rights = tuple(right or ("chat", "search", "feedback"))
    key, secret = add_key(
        _keys_file(config),
        owner,
        tenant or None,
        rights,
        requests_per_minute=per_minute,
        requests_at_once=at_once,
    )
    told = _key_as_json(key) | {"key": secret}
    reach = f"of {tenant}" if tenant else "of every tenant"
    _show(
        as_json,
        told,
        lambda: print(f"{secret}\n{key.id} may {', '.join(key.rights)} {reach}. Keep it: it is shown once."),
    )


@keys.command("list")
def keys_list(config: Settings = None, as_json: Json = False) -> None:
    """Whose keys there are, and what they may do."""
    from tasks.answering.service.keys import read_keys

    known = list(read_keys(_keys_file(config)).values())
    rows = [
        [
            key.id,
            key.name,
            key.tenant,
            ", ".join(key.rights),
            key.requests_per_minute,
            key.requests_at_once,
            _local(key.created),
        ]
        for key in known
    ]
    columns = ["id", "name", "tenant", "rights", "per minute", "at once", "made"]
    told = [_key_as_json(key) for key in known]
    _show(as_json, {"keys": told}, lambda: print_table(columns, rows))


@keys.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(help="The id of the key, as `tandem keys list` shows it.")],
    config: Settings = None,
    as_json: Json = False,
) -> None:
    """Let a key in no more, from its next request on."""
    from tasks.answering.service.keys import revoke_key

    key = revoke_key(_keys_file(config), key_id)
    _show(as_json, {"id": key.id, "name": key.name}, lambda: print(f"{key.id} of {key.name} is let in no more"))


@golden.command("draft")
def golden_draft(
    name: Name,
    out: Annotated[Path, typer.Argument(help="File to write, jsonl.")],
    count: Annotated[int, typer.Option(min=1, help="Most queries to draft.")] = 100,
    as_json: Json = False,
) -> None:
    """Draft golden queries for the newest version of an index from headings and first sentences, for you to edit."""
    from tasks.golden import draft_for_index

    number = draft_for_index(name, out, count, find_home())
    text = f"{number} queries drafted into {out}: edit them, then name the file under `golden` in the configuration"
    _show(as_json, {"file": str(out), "queries": number}, lambda: print(text))


def _questions() -> Iterator[str]:
    """The lines of standard input that are not empty, of which there must be one."""
    line = ""
    try:
        for line in filter(None, map(str.strip, sys.stdin)):
            yield line
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input is no text in {error.encoding}: {error.reason}") from None
    if not line:
        raise ConfigError("there is nothing to answer: give a question, or one a line of standard input")


def _converse(answer: "Callable[[str, Sequence[dict[str, str]]], Answer]", prompt: str) -> None:
    """Answer what is typed, each question with all that was said before; what fails is told and was not said."""
    with suppress(ImportError):  # some Pythons have none
        import readline  # noqa: F401  lines can be edited, and called back
    said: list[dict[str, str]] = []
    while question := _typed(prompt):
        try:
            given = answer(question, said)
        except TandemError as error:
            print(f"tandem: {error}", file=sys.stderr)
            continue
        said += [{"role": "user", "content": question}, {"role": "assistant", "content": given.text}]


def _typed(prompt: str) -> str:
    """What is typed; nothing at the end."""
    try:
        return input(prompt).strip()
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        return ""


def _service_config(name: str, file: Path | None, changes: Mapping[str, Any]) -> "ServiceConfig":
    """From the file that is named, or the release's own under conf/service/, or as it is by default."""
    from tasks.config.loading import load_config, parse_config
    from tasks.config.service import ServiceConfig
    from tasks.config.settings import find_conf

    own = find_conf() / "service" / f"{name}.yaml"
    chosen = file or (own if own.exists() else None)
    config = load_config(chosen, ServiceConfig) if chosen else ServiceConfig()
    given = {key: value for key, value in changes.items() if value is not None}
    return parse_config(config.model_dump() | given, ServiceConfig, "the command line")


def _key_as_json(key: "Key") -> dict[str, Any]:
    hidden = ("sha256", "created")
    return {name: value for name, value in asdict(key).items() if name not in hidden}


def _keys_file(config: Path | None) -> Path:
    return _service_config("", config, {}).keys_file(find_home())


def _run(call: Callable[[], Result]) -> Result:
    """Run what needs Prefect."""
    from tasks.databases import prepare_prefect_home
    from tasks.registry.locations import check_locations

    check_locations(find_home())

    prepare_prefect_home()
    url = os.environ.get("PREFECT_API_URL", "")
    own = read_services(find_home()).get("prefect")
    if url and not (own and url.startswith(own.address)):
        print(f"Prefect server: {url} (PREFECT_API_URL)", file=sys.stderr)
    _check_prefect(url)
    return call()


def _check_prefect(url: str) -> None:
    """Where a Prefect server is set, it has to be there; otherwise Prefect starts one for the command."""
    try:
        reach(url)
    except OSError as error:
        raise ServerError(
            f"the Prefect server at {url} does not answer ({error}): start it, or unset PREFECT_API_URL to "
            "run without one"
        ) from None


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ConfigError(f"--at {text} is no time: write it like 2026-11-20T08:00") from None


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def _show(as_json: bool, value: dict[str, Any], show: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(value, ensure_ascii=False, default=str))
    else:
        show()


def _show_move(as_json: bool, move: "Move", text: str) -> None:
    _show(as_json, asdict(move), lambda: print(f"{move.name}: version {move.after} {text} (before: {move.before})"))


def _service_rows(services: "Mapping[str, Service]") -> list[dict[str, Any]]:
    if not services:
        return []
    from tasks.logs import read_errors
    from tasks.services import condition

    yesterday = datetime.now(UTC) - timedelta(days=1)
    return [
        {
            "name": service.name,
            "condition": condition(service),
            "address": service.address,
            "pid": service.pid,
            "since": _local(service.started),
            "restarts": service.restarts,
            "restarted": _local(service.restarted) if service.restarted else "",
            "errors": sum(1 for _ in read_errors(log_of(find_home(), service.name), yesterday)),
            "log": str(log_of(find_home(), service.name)),
        }
        for service in services.values()
    ]


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"


def _tell_of_clocks(config: "DeploymentsConfig") -> None:
    from tasks.clock_changes import examine_clocks

    for sentence in examine_clocks(config, datetime.now(UTC)):
        print(f"tandem: {sentence}", file=sys.stderr)


def _close(done: Any, as_json: bool, show: Callable[[Any], None], *good: str) -> None:
    """Show what a flow came to; exit status 1 for any other decision than these."""
    _show(as_json, asdict(done), lambda: show(done))
    raise typer.Exit(0 if done.decision in good else 1)


def _collected(result: dict[str, Any], dry_run: bool) -> str:
    verb = "would be deleted" if dry_run else "deleted"
    numbers = ", ".join(str(number) for number in result["deleted"]) or "no version"
    return f"{numbers} {verb}; {result['freed_bytes'] / 1e6:.1f} MB freed"


def _fail(error: object, status: int) -> None:
    print(f"tandem: {error}", file=sys.stderr)
    sys.exit(status)
