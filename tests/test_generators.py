"""Language models that write answers: one in this process, one behind an address."""

import gc
from pathlib import Path

import pytest

from tasks.answering.endpoint import EndpointGenerator
from tasks.answering.local import LocalGenerator
from tasks.config.answering import GeneratorConfig, PolicyConfig
from tasks.errors import ModelError
from tasks.releases import check_fit
from tests.endpoint import Served, serve
from tests.tiny_models import Base

TURNS = [{"role": "system", "content": "Tea is hot."}, {"role": "user", "content": "how hot is tea"}]


def generator(served: Served, adapter: str = "") -> EndpointGenerator:
    address = served.config.base_url
    return EndpointGenerator(
        GeneratorConfig(kind="endpoint", base_url=address, model="big", api_key_env="KEY"), adapter
    )


def test_an_endpoint_gets_the_turns_and_gives_the_text_and_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "secret")
    with serve(lambda texts: [{"content": f"{len(texts)} turns [1]"}]) as served:
        made = generator(served).answer("how hot is tea", [], TURNS)
    assert (made.text, made.tokens_in, made.tokens_out) == ("2 turns [1]", 7, 3)
    [asked] = served.asked
    assert (asked["path"], asked["key"], asked["model"]) == ("/v1/chat/completions", "Bearer secret", "big")
    assert asked["messages"] == TURNS
    assert asked["temperature"] == 0


def test_an_adapter_is_asked_for_by_its_name_and_version() -> None:
    with serve(lambda texts: [{"content": "yes"}]) as served:
        generator(served, "support@3").answer("", [], TURNS)
    assert served.asked[0]["model"] == "support-v3"


def test_an_adapter_is_loaded_by_the_endpoint_again_where_it_was_lost_and_unloaded_at_the_end(tmp_path: Path) -> None:
    with serve(lambda texts: [{"content": "yes"}]) as served:
        address = served.config.base_url
        config = GeneratorConfig(kind="endpoint", base_url=address, model="big", load_adapter=True)
        asking = EndpointGenerator(config, "support@3", tmp_path)
        served.failures += [404]  # to the question: the endpoint was started anew
        assert asking.answer("", [], TURNS).text == "yes"
        del asking
        gc.collect()
    load, ask, unload = "/v1/load_lora_adapter", "/v1/chat/completions", "/v1/unload_lora_adapter"
    assert [asked["path"] for asked in served.asked] == [load, ask, load, ask, unload]
    assert (served.asked[0]["lora_name"], served.asked[0]["lora_path"]) == ("support-v3", str(tmp_path))
    assert served.asked[-1]["lora_name"] == "support-v3"


def test_an_endpoint_that_loads_no_adapter_is_a_sentence_that_says_what_it_needs(tmp_path: Path) -> None:
    with serve(lambda texts: [{"content": "yes"}], failures=[404]) as served:
        config = GeneratorConfig(kind="endpoint", base_url=served.config.base_url, model="big", load_adapter=True)
        with pytest.raises(ModelError, match=r"does not load the adapter support-v3 .*--enable-lora"):
            EndpointGenerator(config, "support@3", tmp_path)


def test_an_endpoint_that_says_no_is_a_sentence_with_its_address() -> None:
    with serve(lambda texts: [{"content": ""}], failures=[401]) as served:
        asked = generator(served)
        with pytest.raises(ModelError, match=f"big at {served.config.base_url} does not answer: check .* KEY"):
            asked.answer("", [], TURNS)


def test_a_model_in_this_process_counts_the_tokens_that_it_reads_and_writes(tiny_model: Path) -> None:
    base = Base(tiny_model)
    made = LocalGenerator(base, max_new_tokens=5).answer("how hot is tea", [], TURNS)
    read = base.tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, tokenize=False)
    assert made.tokens_in == len(base.tokenizer(read)["input_ids"])
    assert made.text == base.say([TURNS], 5)[0].text
    assert made.tokens_out <= 5


@pytest.mark.parametrize(
    ("kind", "adapter", "message"),
    [("transformers", "", "needs an adapter"), ("extractive", "support@3", "leave support@3 out")],
)
def test_a_generator_and_an_adapter_that_do_not_fit_are_named(kind: str, adapter: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_fit(PolicyConfig(generator=GeneratorConfig(kind=kind)), adapter)


def test_loading_is_for_an_endpoint_and_needs_an_adapter() -> None:
    with pytest.raises(ValueError, match="load_adapter is for an endpoint"):
        GeneratorConfig(load_adapter=True)
    loading = GeneratorConfig(kind="endpoint", base_url="http://127.0.0.1/v1", model="big", load_adapter=True)
    with pytest.raises(ModelError, match="name one under `adapter`"):
        check_fit(PolicyConfig(generator=loading), "")


def test_an_endpoint_without_an_address_is_no_configuration() -> None:
    with pytest.raises(ValueError, match="name its base_url and model"):
        GeneratorConfig(kind="endpoint")
