"""All that Airflow itself must know of Mailing Service. Every Airflow process imports this file: keep it light."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from mailing import preload
from mailing.timetable import CampaignTimetable


class MailingPlugin(AirflowPlugin):
    """Registers the campaign timetable, so that schedulers can read it back from the metadata database."""

    name = "mailing"
    timetables = [CampaignTimetable]  # noqa: RUF012 - Airflow reads a list
    listeners = [preload]  # noqa: RUF012 - Airflow reads a list

    # Inside Airflow's frame; addresses without a leading slash survive a reverse proxy.
    external_views = [  # noqa: RUF012 - Airflow reads a list
        {
            "name": "Mailing", "href": "mailing/admin/campaigns", "destination": "nav", "url_route": "mailing",
            "icon": "mailing/admin/static/mailing.svg",
        },
        {
            "name": "Campaign", "href": "mailing/admin/of-dag/{DAG_ID}", "destination": "dag", "url_route": "campaign",
        },
    ]  # fmt: skip

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The web app: imported here, for only the API server asks."""
        from mailing import web

        return [{"app": web.app(), "url_prefix": web.PREFIX, "name": "Mailing Service"}]
