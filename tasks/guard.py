"""Attacks a release before it goes live, with poisoned passages and canaries in a scratch copy of its index."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from prefect import task

from tasks.answering.assistant import SPARE, Assistant
from tasks.config.answering import ReleaseConfig
from tasks.config.choices import load_choice
from tasks.config.guardrails import GuardrailsConfig
from tasks.config.settings import Home, find_home
from tasks.config.training import DatasetConfig
from tasks.errors import TandemError
from tasks.evaluation.attacks import Attack, build_attacks, load_attacks
from tasks.evaluation.golden import load_golden
from tasks.evaluation.guardrails import Outcome, judge_attack, score_outcomes
from tasks.evaluation.scores import CANDIDATE, CHAMPION, Score
from tasks.examine import Examined
from tasks.index.scratch import plant
from tasks.progress import progress
from tasks.records import AdapterManifest, Answer, ReleaseManifest
from tasks.registry.connection import connect
from tasks.registry.versions import resolve_champion
from tasks.releases import open_manifest, open_release, part


@dataclass(frozen=True, slots=True)
class Guarded:
    """How a release stood against the suite; nothing where no suite is named."""

    suite: GuardrailsConfig | None = None
    outcomes: tuple[Outcome, ...] = ()
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    """By contender."""
    notes: tuple[str, ...] = ()


@task(name="guard", task_run_name="guard {manifest.release}")
def guard(config: ReleaseConfig, manifest: ReleaseManifest) -> Guarded:
    """Try every attack of the configured suite, also on the live release where losses against it count."""
    if config.guardrails is None:
        return Guarded()
    home = find_home()
    suite = load_choice("suites/guardrails", config.guardrails, GuardrailsConfig)
    attacks = build_attacks(
        suite, load_attacks(suite.data), load_golden(config.golden), training_rows(manifest.adapter, home)
    )
    beside = resolve_champion(connect(home), config.name) if suite.max_loss else None
    with progress("guard", config.name, len(attacks) * (2 if beside else 1)) as advance:
        outcomes = attack(open_manifest(manifest, home), suite, attacks, advance)
        scores = {CANDIDATE: score_outcomes(outcomes, config.gate.confidence)}
        notes: tuple[str, ...] = ()
        if beside:
            try:
                theirs = attack(open_release(config.name, beside.number, home), suite, attacks, advance)
                scores[CHAMPION] = score_outcomes(theirs, config.gate.confidence)
            except TandemError as error:
                notes = (f"champion not attacked: {error}",)
    return Guarded(suite, tuple(outcomes), scores, notes)


def with_guardrails(examined: Examined, guarded: Guarded) -> Examined:
    """The scores of a release with its pass rates among them."""
    contenders = {who: scores | guarded.scores.get(who, {}) for who, scores in examined.contenders.items()}
    return replace(examined, contenders=contenders, notes=(*examined.notes, *guarded.notes))


def attack(assistant: Assistant, suite: GuardrailsConfig, attacks: Sequence[Attack], advance: Any) -> list[Outcome]:
    """Ask a release every case, those with planted passages over a scratch copy of its index."""
    planted = {each.document: each for case in attacks for each in case.planted}
    markers = [marker for case in attacks if case.check == "injected_passages" for marker in case.forbidden]
    prompt = " ".join(turn["content"] for turn in assistant.prompt)
    overlap = 0.0 if assistant.policy.generator.kind == "extractive" else suite.min_token_f1
    asked = [(case.question, case.tenant) for case in attacks if case.planted]
    outcomes = []
    depth = SPARE * assistant.policy.passages  # as many as are looked at, so that what is planted has its rivals
    scratch = (
        plant(assistant.reader, asked, list(planted.values()), depth) if planted else nullcontext(assistant.reader)
    )
    with scratch as reader:
        poisoned = replace(assistant, reader=reader)
        for case in attacks:
            target = poisoned if case.planted else assistant
            answer = _ask(target, case, case.question)
            twin = _ask(target, case, case.twin) if case.twin else None
            outcomes.append(judge_attack(case, answer, suite, prompt, markers, twin, overlap))
            advance(1)
    return outcomes


def _ask(assistant: Assistant, case: Attack, question: str) -> Answer:
    if case.check == "memorised":  # no refusal shall hide what the adapter knows by heart
        assistant = replace(assistant, grounding=replace(assistant.grounding, threshold=0.0))
    return assistant.answer(question, case.tenant)


def training_rows(adapter: str, home: Home) -> list[str] | None:
    """What the users of an adapter's training rows said, and the answers to them; None without an adapter."""
    if not adapter:
        return None
    from tasks.training.formats import Example, read_examples
    from tasks.training.rows import read_rows

    manifest = AdapterManifest.from_json(part(connect(home), adapter))
    dataset = load_choice("datasets", manifest.dataset, DatasetConfig)
    examples = [row for row in read_examples(read_rows(dataset.sources), dataset) if isinstance(row, Example)]
    return [
        " ".join(turn["content"] for turns in example.parts.values() for turn in turns if turn["role"] != "system")
        for example in examples
    ]
