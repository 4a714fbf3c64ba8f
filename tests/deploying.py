"""A deployment of the re-index that a test deploys again and again, and changes as a person does in Prefect's page."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse

from tasks.config.deployments import DeploymentsConfig
from tasks.deploy import deploy_all

ROOT = Path(__file__).resolve().parents[1]
NIGHT, NOON = "0 2 * * *", "0 12 * * *"


@dataclass
class Page:
    """The files of one deployment, and Prefect as its page shows it."""

    folder: Path
    client: SyncPrefectClient
    settings: dict[str, Any] = field(default_factory=lambda: {"cron": NIGHT, "limit": 1})
    config: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, Any] = field(default_factory=dict)

    def deploy(self, reset: bool = False) -> str:
        """Write the files, deploy them, and return what is told of what is kept."""
        site = {"name": "docs", "location": str(self.folder)}
        (self.folder / "docs.yaml").write_text(yaml.safe_dump({"name": "docs", "sources": [site]} | self.config))
        deployment = {"name": "kept", "flow": "flows/reindex.py:reindex", "config": str(self.folder / "docs.yaml")}
        values = {"work_pools": [{"name": "kept"} | self.pool], "automations": str(self.folder / "automations")}
        values |= {"deployments": [deployment | {"work_pool": "kept"} | self.settings]}
        return "\n".join(deploy_all(DeploymentsConfig.model_validate(values), ROOT, reset)[1].kept)

    @property
    def deployment(self) -> DeploymentResponse:
        return self.client.read_deployment_by_name("reindex/kept")

    def crons(self) -> dict[str, bool]:
        """The schedules, and whether each is switched on."""
        return {each.schedule.cron: each.active for each in self.deployment.schedules}  # type: ignore[union-attr]

    def own(self) -> DeploymentSchedule:
        return next(each for each in self.deployment.schedules if each.slug)

    def parameter(self, group: str, name: str) -> Any:
        return self.deployment.parameters["config"].get(group, {}).get(name)

    def edit(self, group: str, **values: Any) -> None:
        """Change settings of the form that the deployment opens with."""
        config = self.deployment.parameters["config"]
        changed = {"config": config | {group: config.get(group, {}) | values}}
        self.client.update_deployment(self.deployment.id, DeploymentUpdate(parameters=changed))


@contextmanager
def deployed(folder: Path) -> Iterator[Page]:
    """Deployed once, with its files in the folder; gone afterwards."""
    (folder / "automations").mkdir()
    with get_client(sync_client=True) as client:
        page = Page(folder, client)
        page.deploy()
        yield page
        client.delete_deployment(page.deployment.id)
        client.delete_work_pool("kept")
