"""All that Airflow itself must know of Mailing Service. Every Airflow process imports this file: keep it light."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from mailing.timetable import CampaignTimetable


class MailingPlugin(AirflowPlugin):
    """Registers the campaign timetable, so that schedulers can read it back from the metadata database."""

    name = "mailing"
    timetables = [CampaignTimetable]  # noqa: RUF012 - Airflow reads a list

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The web app: imported here, for only the API server asks."""
        from mailing import web

        return [{"app": web.app(), "url_prefix": web.PREFIX, "name": "Mailing Service"}]
