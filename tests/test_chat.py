"""What a model is trained on continues the prompts it is asked with, and everywhere it writes it ends alike."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tasks.errors import ModelError
from tasks.training.chat import (
    check_template,
    exchange,
    find_unwritable,
    knows_system,
    lessons,
    prompt_tokens,
    read_answer,
    stop_tokens,
    turn_ends,
)
from tasks.training.trainers import NO_LABEL, written_lessons
from tests.templated import FAMILIES, template_of, under_template
from tests.tiny_models import Base, dpo_job, sft_job

ANSWER = '{"intent": "cancel", "order": null}'
PAIR = [{"role": "user", "content": "Cancel the order."}, {"role": "assistant", "content": ANSWER}]
AGAIN = [{"role": "user", "content": "And the red box?"}, {"role": "assistant", "content": '{"intent": "refund"}'}]
SYSTEM = [{"role": "system", "content": "Answer in JSON."}]
QWEN3_ASKS = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
"""The structure of Mistral's own: no header of an answer, which ends with the end of the sequence; no system turn."""
BARE = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
"""No token ends a turn."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    """The tiny base model as one of each family, untrained in its form."""
    folder = tmp_path_factory.mktemp("families")
    return {name: Base(under_template(family, folder / name)) for name, family in FAMILIES.items()}


def tokenizer_with(base: Base, template: str) -> Any:
    """The base's tokenizer with another template."""
    from tasks.training.base import load_tokenizer

    tokenizer = load_tokenizer(Path(base.tokenizer.name_or_path))
    tokenizer.chat_template = template
    return tokenizer


each_family = pytest.mark.parametrize("name", FAMILIES)


@each_family
def test_an_answer_ends_with_the_templates_end_of_turn_or_an_eos_of_tokenizer_or_model(
    name: str, bases: dict[str, Base]
) -> None:
    base, family = bases[name], FAMILIES[name]
    named = list(dict.fromkeys([family.turn_end, family.eos]))
    assert base.tokenizer.convert_ids_to_tokens(turn_ends(base.tokenizer)) == named
    for configured, more in ((7, [7]), ([8, base.tokenizer.eos_token_id, 9], [8, 9]), (None, [])):
        base.model.generation_config.eos_token_id = configured
        assert stop_tokens(base.tokenizer, base.model) == [*turn_ends(base.tokenizer), *more]
    base.model.generation_config.eos_token_id = base.tokenizer.eos_token_id


@each_family
@pytest.mark.parametrize("turns", [PAIR, [*PAIR, *AGAIN], [*SYSTEM, *PAIR]], ids=["one", "two", "system"])
def test_what_is_trained_on_continues_exactly_the_prompt_that_is_asked(
    name: str, turns: list[dict[str, str]], bases: dict[str, Base]
) -> None:
    tokenizer, family = bases[name].tokenizer, FAMILIES[name]
    for place in [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]:
        asked = prompt_tokens(tokenizer, turns[:place])
        prompt, answer = exchange(tokenizer, turns[: place + 1])
        assert prompt == asked
        assert tokenizer.decode(answer) == turns[place]["content"] + family.turn_end
        assert read_answer(tokenizer, prompt, answer) == turns[place]["content"]
        taught = [tokens for tokens, _ in lessons(tokenizer, turns) if tokens[: len(asked)] == asked]
        assert [tokens[len(asked) :][: len(answer)] for tokens in taught] == [answer]


@each_family
def test_the_prompt_is_the_one_that_the_template_renders(name: str, bases: dict[str, Base]) -> None:
    tokenizer = bases[name].tokenizer
    rendered = tokenizer.apply_chat_template(
        PAIR[:1], add_generation_prompt=True, enable_thinking=False, return_dict=True
    )
    assert prompt_tokens(tokenizer, PAIR[:1]) == rendered["input_ids"]


def test_every_answer_is_taught_once_and_nothing_else(bases: dict[str, Base]) -> None:
    for name, sequences in (("qwen3", 2), ("gemma", 1), ("llama3", 1), ("phi", 1)):
        tokenizer, end = bases[name].tokenizer, FAMILIES[name].turn_end
        written = lessons(tokenizer, [*PAIR, *AGAIN])
        assert len(written) == sequences  # Qwen3 writes the empty thought before the last answer only
        answers = [[token for token, counts in zip(*lesson, strict=True) if counts] for lesson in written]
        assert "".join(map(tokenizer.decode, answers)) == f'{ANSWER}{end}{{"intent": "refund"}}{end}', name
    qwen3 = bases["qwen3"].tokenizer
    assert qwen3.decode(lessons(qwen3, PAIR)[0][0]).endswith(f"{QWEN3_ASKS}{ANSWER}<|im_end|>")


@pytest.mark.usefixtures("tiny_conf")
def test_rows_with_several_answers_that_become_more_are_told(bases: dict[str, Base], tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": PAIR}, {"messages": [*PAIR, *AGAIN]}]), file)
    for name, rows in (("qwen3", 3), ("gemma", 2)):
        written, remark = written_lessons(sft_job(tmp_path, tmp_path, file), bases[name].tokenizer)
        assert len(written) == rows
        assert remark.startswith("2 rows are trained on as 3: ") == (rows == 3)
        for row in written:
            learned = [label for label in row["labels"] if label != NO_LABEL]
            assert bases[name].tokenizer.decode(learned).startswith(ANSWER + FAMILIES[name].turn_end) or rows == 3
            assert all(label in (NO_LABEL, token) for label, token in zip(row["labels"], row["input_ids"], strict=True))


@pytest.mark.usefixtures("tiny_conf")
@each_family
def test_pairs_are_read_as_prompts_and_answers_that_continue_them(
    name: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    from tasks.training.lora import new_adapter
    from tasks.training.speed import choose_speed
    from tasks.training.trainers import dpo_trainer

    base, other = bases[name], [{"role": "assistant", "content": "no"}]
    rows = [{"prompt": PAIR[:1], "chosen": PAIR[1:], "rejected": other}] * 8
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    job = dpo_job(tmp_path / "job", Path(base.tokenizer.name_or_path), tmp_path / "pairs.parquet", max_steps=1)
    job.folder.mkdir()
    assert job.dpo
    from tasks.training.base import load_base

    folder = Path(base.tokenizer.name_or_path)
    model = new_adapter(load_base(folder, torch.float32), job.dpo.lora, 0)
    trainer = dpo_trainer(job, job.dpo, model, base.tokenizer, choose_speed(job.machine, folder), [])
    pair = trainer.train_dataset[0]
    prompt, chosen = exchange(base.tokenizer, PAIR)
    assert (pair["prompt_ids"], pair["chosen_ids"]) == (prompt, chosen)
    assert base.tokenizer.decode(pair["rejected_ids"]) == "no" + FAMILIES[name].turn_end


class Writes:
    """A model that would write what it is told: one token is likely at each step, whatever it has read."""

    def __init__(self, base: Base, tokens: list[int]) -> None:
        self.base, self.tokens, self.read = base, tokens, 0

    def __enter__(self) -> "Writes":
        self.hook = self.base.model.lm_head.register_forward_hook(self._write)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def _write(self, module: Any, args: Any, logits: torch.Tensor) -> torch.Tensor:
        told = torch.full_like(logits, -10.0)
        told[..., self.tokens[min(self.read, len(self.tokens) - 1)]] = 10.0
        self.read += 1
        return told


@each_family
def test_an_answer_stops_at_each_of_its_ends_and_what_follows_is_no_part_of_it(
    name: str, bases: dict[str, Base]
) -> None:
    base = bases[name]
    text = base.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    configured = base.tokenizer.convert_tokens_to_ids("x")
    base.model.generation_config.eos_token_id = [configured]
    for end in {*turn_ends(base.tokenizer), configured}:
        with Writes(base, [*text, end, *text, end]):
            [said] = base.say([PAIR[:1]], 60)
        assert (said.text, said.tokens_out, said.cut) == (ANSWER, len(text) + 1, False)
        assert said.confidence == pytest.approx(1, abs=1e-3)
    with Writes(base, text * 9):
        [said] = base.say([PAIR[:1]], 20)
    assert (said.tokens_out, said.cut) == (20, True)
    base.model.generation_config.eos_token_id = base.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("thought", "rest"),
    [
        ("<think>\n\n</think>\n\n", ANSWER),
        ("<think>\nIt is to be cancelled.\n</think>\n\n", ANSWER),
        ("<think>\nIt is to be", "<think>\nIt is to be" + ANSWER),
        ("So <think></think>", "So <think></think>" + ANSWER),
    ],
    ids=["empty", "closed", "open", "later"],
)
def test_a_closed_thought_at_the_beginning_is_no_part_of_an_answer(
    thought: str, rest: str, bases: dict[str, Base]
) -> None:
    tokenizer = bases["qwen3"].tokenizer
    written = tokenizer(thought + ANSWER, add_special_tokens=False)["input_ids"]
    with Writes(bases["qwen3"], [*written, tokenizer.eos_token_id]):
        [said] = bases["qwen3"].say([PAIR[:1]], 80)
    assert (said.text, said.tokens_out) == (rest, len(written) + 1)


def test_a_thought_that_the_prompt_opens_is_no_part_of_an_answer(bases: dict[str, Base]) -> None:
    tokenizer = tokenizer_with(
        bases["qwen3"], template_of("qwen3").replace("'<think>\\n\\n</think>\\n\\n'", "'<think>\\n'")
    )
    prompt, answer = exchange(tokenizer, PAIR)
    assert tokenizer.decode(prompt).endswith("<think>\n")
    assert tokenizer.decode(answer).endswith(f"</think>\n\n{ANSWER}<|im_end|>")
    assert read_answer(tokenizer, prompt, answer) == ANSWER


@each_family
def test_a_schema_holds_and_the_answer_ends_under_every_template(name: str, bases: dict[str, Base]) -> None:
    import llguidance

    grammar = llguidance.LLMatcher.grammar_from_json_schema({"type": "integer"})  # which further digits would fit too
    for end in turn_ends(bases[name].tokenizer):
        value = bases[name].tokenizer("12", add_special_tokens=False)["input_ids"]
        with Writes(bases[name], [*value, end]):
            [said] = bases[name].say([PAIR[:1]], 40, grammar)
        assert (said.text, said.tokens_out, said.cut) == ("12", len(value) + 1, False)


def test_a_template_without_a_system_turn_gets_it_before_the_first_user_turn(bases: dict[str, Base]) -> None:
    gemma = bases["gemma"].tokenizer
    leaves_out = template_of("phi3").replace("message['role'] == 'system'", "false")
    for tokenizer in (gemma, tokenizer_with(bases["gemma"], MISTRAL), tokenizer_with(bases["phi"], leaves_out)):
        assert not knows_system(tokenizer)
        asked = tokenizer.decode(prompt_tokens(tokenizer, [*SYSTEM, *PAIR, *AGAIN[:1]]))
        assert "Answer in JSON.\n\nCancel the order." in asked
        assert asked.count("Answer in JSON.") == 1
    for name in ("qwen3", "phi", "llama3"):
        assert knows_system(bases[name].tokenizer)
        assert "Answer in JSON.\n\n" not in bases[name].tokenizer.decode(
            prompt_tokens(bases[name].tokenizer, [*SYSTEM, *PAIR])
        )


def test_an_answer_that_no_token_ends_is_ended_by_the_end_of_the_sequence(bases: dict[str, Base]) -> None:
    for template in (MISTRAL, BARE):
        tokenizer = tokenizer_with(bases["gemma"], template)
        assert tokenizer.convert_ids_to_tokens(turn_ends(tokenizer)) == ["<eos>"]
        prompt, answer = exchange(tokenizer, PAIR)
        assert tokenizer.decode(answer).strip() == f"{ANSWER}<eos>"
        assert prompt == prompt_tokens(tokenizer, PAIR[:1])
        taught = [
            tokenizer.decode([token for token, counts in zip(*lesson, strict=True) if counts]).count("<eos>")
            for lesson in lessons(tokenizer, [*PAIR, *AGAIN])
        ]
        assert sum(taught) == 2


def test_a_template_whose_prompts_no_answer_continues_is_refused_with_both(bases: dict[str, Base]) -> None:
    base = bases["qwen3"]
    for name in FAMILIES:
        check_template(bases[name].tokenizer)
    with pytest.raises(ModelError, match=r"a prompt is .*<think>\\n', and with its answer .*take another base model"):
        check_template(tokenizer_with(base, template_of("deepseek_r1_distill")))
    with pytest.raises(ModelError, match=r"final<\|message\|>"):
        check_template(tokenizer_with(base, template_of("gptoss")))
    with pytest.raises(ModelError, match="is refused, and with its answer refused"):
        check_template(tokenizer_with(base, "{{ raise_exception('never') }}"))


def test_a_conversation_that_a_template_refuses_is_a_sentence(bases: dict[str, Base]) -> None:
    with pytest.raises(ModelError, match=r"refuses a conversation \(Conversation roles must alternate"):
        bases["gemma"].say([[*PAIR[:1], *PAIR[:1]]], 4)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ANSWER, ""),
        (
            "It is <|im_end|> here.",
            "cannot be written by the chat template of the base model: in an answer stands <|im_end|>",
        ),
        ("<think>\nWhy?\n</think>\n\nSo.", "cannot be written .*: an answer does not continue the prompt"),
    ],
)
def test_a_row_that_would_end_early_or_thinks_says_why_it_is_left_out(
    answer: str, reason: str, bases: dict[str, Base]
) -> None:
    import re

    turns = [*PAIR[:1], {"role": "assistant", "content": answer}]
    for conversation in (turns, [*turns, *AGAIN]):
        assert re.match(reason or "$", find_unwritable(bases["qwen3"].tokenizer, conversation))


def test_a_row_whose_answer_begins_where_the_prompts_last_token_would_grow_keeps_the_prompt(
    bases: dict[str, Base],
) -> None:
    tokenizer = tokenizer_with(
        bases["gemma"], BARE.replace("'assistant:'", "'assistant'").replace("m.role + ': '", "m.role")
    )
    turns = [*PAIR[:1], {"role": "assistant", "content": "s are many"}]
    prompt, answer = exchange(tokenizer, turns)
    assert prompt == prompt_tokens(tokenizer, turns[:-1])
    assert tokenizer.decode(answer) == "s are many<eos>"
