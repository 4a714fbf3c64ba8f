"""Watches an installation: runs are recovered, releases follow their parts, and what is wrong with it is told."""

import logging
import time
from datetime import UTC, datetime
from itertools import count

import httpx
from prefect import get_client
from prefect.exceptions import PrefectException

from tasks.alerts import Alerts
from tasks.close import close_ended
from tasks.config.settings import Home
from tasks.errors import TandemError
from tasks.follow import Followed, start_followers, wait_for_a_move
from tasks.recover import HEARTBEAT, recover

log = logging.getLogger(__name__)
LOOK_SECONDS = 10.0
CLOSE_EVERY = 6
"""Looks from one to the next at MLflow's running runs, which are closed a minute after their flow run anyway."""


def watch(home: Home) -> None:
    """Watch the servers that PREFECT_API_URL and MLFLOW_TRACKING_URI name, until this process is ended."""
    heard = since = datetime.now(UTC)
    trouble, followed = "", Followed()
    alerts = Alerts(home, looked=since)  # services that were just started may take a minute to have something to show
    with get_client(sync_client=True) as client:
        for look in count():
            now = datetime.now(UTC)
            if now - heard > HEARTBEAT:  # the server or this machine was away: nobody could say that a run lives
                since = now
            try:
                recover(client, since, now)
                heard = now
                if look % CLOSE_EVERY == 0:
                    close_ended(client, home, now)
                releases = start_followers(client, home, followed)
                alerts.look(now)
                trouble = ""
                wait_for_a_move(home, releases, followed, LOOK_SECONDS)
            except (httpx.HTTPError, PrefectException, TandemError) as error:
                if str(error) != trouble:
                    log.warning("%s: %s", type(error).__name__, error)
                trouble = str(error)
                alerts.look(now)
                time.sleep(LOOK_SECONDS)
