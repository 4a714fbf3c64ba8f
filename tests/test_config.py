"""Every configuration in conf/ fits its exact class, and every class renders as a form."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tasks.config.advice import CaseConfig, PricesConfig
from tasks.config.answering import PolicyConfig, PromptConfig, ReleaseConfig
from tasks.config.base_model import BaseModelBuildConfig
from tasks.config.curation import ApproveRowsConfig, CurateConfig
from tasks.config.deployments import AutomationConfig, DeploymentsConfig
from tasks.config.diagnosis import DiagnoseConfig
from tasks.config.evaluation import AnswersConfig
from tasks.config.guardrails import GuardrailsConfig
from tasks.config.index import EmbedderConfig, ReindexConfig, SourceConfig
from tasks.config.loading import load_config, parse_config
from tasks.config.maintenance import MaintainConfig
from tasks.config.monitoring import MonitorConfig
from tasks.config.moves import ApproveConfig, RollbackConfig
from tasks.config.service import ServiceConfig
from tasks.config.shadow import ShadowConfig
from tasks.config.training import BaseModelConfig, DatasetConfig, DpoConfig, SftConfig
from tasks.errors import ConfigError

CONF = Path(__file__).resolve().parents[1] / "conf"
CLASS_OF: dict[str, type[BaseModel]] = {
    "cases": CaseConfig,
    "automations": AutomationConfig,
    "base_model": BaseModelBuildConfig,
    "curate": CurateConfig,
    "datasets": DatasetConfig,
    "diagnose": DiagnoseConfig,
    "dpo": DpoConfig,
    "index": ReindexConfig,
    "monitor": MonitorConfig,
    "models": BaseModelConfig,
    "policies": PolicyConfig,
    "prompts": PromptConfig,
    "release": ReleaseConfig,
    "service": ServiceConfig,
    "sft": SftConfig,
    "shadow": ShadowConfig,
    "suites/answers": AnswersConfig,
    "suites/guardrails": GuardrailsConfig,
}
"""By folder below conf/."""

CLASS_OF_FILE: dict[str, type[BaseModel]] = {
    "deployments.yaml": DeploymentsConfig,
    "maintain.yaml": MaintainConfig,
    "prices.yaml": PricesConfig,
}
"""In conf/ itself."""

OURS = {*CONF.rglob("*.yaml")} - {CONF / "garak.yaml"}
"""All but what another program reads."""

FORMS = [
    ReindexConfig,
    ApproveConfig,
    RollbackConfig,
    DeploymentsConfig,
    SftConfig,
    DpoConfig,
    BaseModelBuildConfig,
    ReleaseConfig,
    PolicyConfig,
    PromptConfig,
    AnswersConfig,
    GuardrailsConfig,
    ServiceConfig,
    ShadowConfig,
    CaseConfig,
    PricesConfig,
    MaintainConfig,
    MonitorConfig,
    AutomationConfig,
    DiagnoseConfig,
    CurateConfig,
    ApproveRowsConfig,
]


@pytest.mark.parametrize("file", sorted(OURS), ids=lambda file: str(file.relative_to(CONF)))
def test_every_file_fits_its_class(file: Path) -> None:
    loaded = load_config(file, CLASS_OF_FILE.get(file.name) or CLASS_OF[str(file.parent.relative_to(CONF))])
    assert getattr(loaded, "name", file.stem) == file.stem


def test_every_deployment_names_a_flow_that_takes_its_configuration() -> None:
    for deployment in load_config(CONF / "deployments.yaml", DeploymentsConfig).deployments:
        file, _, function = deployment.flow.partition(":")
        assert f"def {function}(config: " in (CONF.parent / file).read_text()
        if deployment.config:
            assert (CONF.parent / deployment.config).is_file()


@pytest.mark.parametrize("model", FORMS)
def test_a_form_has_no_unions_of_models_and_describes_every_field(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        assert part["additionalProperties"] is False
        assert part["description"]
        for name, field in part["properties"].items():
            assert field.get("description"), name
            assert not any("$ref" in option for option in field.get("anyOf", field.get("oneOf", []))), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sources": []}, "sources: Tuple should have at least 1 item"),
        ({"name": "Doc s"}, "name: String should match pattern"),
        ({"max_deleted_share": 1.5}, "max_deleted_share: Input should be less than or equal to 1"),
        ({"chunking": {"max_tokens": 20, "overlap_tokens": 20}}, "overlap_tokens (20) must be smaller than max_tokens"),
        ({"gate": {"metric": "accuracy"}}, "gate.metric: Input should be 'recall@1'"),
        ({"gate": {"floors": {"recall@3": 0.5}}}, "gate.floors"),
        ({"sources": [{"name": "a", "location": "x", "inclde": []}]}, "sources.0.inclde: unknown key; did you mean"),
        ({"sources": [{"name": "a", "location": "x"}] * 2}, "two sources are called a"),
        ({"nonsense": 1}, "nonsense: unknown key; known keys are chunking, embedder"),
    ],
)
def test_a_mistake_is_named_with_its_place(change: dict[str, Any], said: str) -> None:
    good = {"name": "docs", "sources": [{"name": "docs", "location": "site"}]}
    with pytest.raises(ConfigError, match=r"^here\.yaml is not a valid ReindexConfig:\n") as caught:
        parse_config(good | change, ReindexConfig, "here.yaml")
    assert said in str(caught.value)


def test_a_form_offers_the_models_and_data_sets_of_conf_as_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = SftConfig.model_json_schema()["properties"]
    assert fields["base"]["enum"] == sorted(file.stem for file in (CONF / "models").iterdir())
    assert fields["dataset"]["enum"] == sorted(file.stem for file in (CONF / "datasets").iterdir())
    with pytest.raises(ConfigError, match=r"base: there is no conf/models/huge\.yaml; there are .*tiny"):
        parse_config({"name": "a", "base": "huge", "dataset": "support"}, SftConfig, "here.yaml")


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        (SftConfig, {"scoring": {"scores": ["schema_valid"]}}, "name the schema's file under scoring.json_schema"),
        (DpoConfig, {"scoring": {"scores": ["schema_valid"]}}, "name the schema's file under scoring.json_schema"),
        (SftConfig, {"parent": "support"}, "parent: String should match pattern"),
        (SftConfig, {"training": {"beta": 0.1}}, "training.beta: unknown key"),
        (DpoConfig, {"training": {"loss": "exo_pair"}}, "exo_pair needs a label_smoothing"),
        (DpoConfig, {"lora": {"rank": 0}}, "lora.rank: Input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_in_a_fine_tune_is_named_with_its_place(
    model: type[BaseModel], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"name": "a", "base": "tiny", "dataset": "support"} | change, model, "here.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist: name a file under conf/"),
        (b"name: [docs", "is not readable as YAML"),
        (b"name: \xff\xfe", "is not readable as YAML"),
        (b"- docs", "must hold keys and values, not list"),
        (b"", "must hold keys and values, not NoneType"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "docs.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file, ReindexConfig)
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match="Europe/Berln is no time zone"):
        parse_config({"timezone": "Europe/Berln", "deployments": []}, DeploymentsConfig, "here.yaml")


def test_a_configuration_cannot_be_changed_and_survives_json() -> None:
    config = ReindexConfig(
        name="docs",
        sources=(SourceConfig(name="docs", location="site"),),
        embedder=EmbedderConfig(kind="openai", base_url="http://localhost/v1"),
    )
    assert ReindexConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"  # type: ignore[misc]
