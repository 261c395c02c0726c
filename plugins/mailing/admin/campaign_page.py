"""A campaign's page, live: what it shows is one object, which the page asks for again and again."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette_admin.routing import route

from mailing import campaigns, db, roster, segments, watch
from mailing.admin import campaign_words as words
from mailing.admin import pressed
from mailing.admin.campaign_actions import campaign_of
from mailing.admin.common import Page, in_database, reader
from mailing.admin.shared import Shared
from mailing.watch import Watched
from mailing.window import Window

LIVE: Shared[Watched] = Shared(age_s=2.0, size=200)
"""The ledger of a campaign is read once for all who look at it."""


class CampaignPage(Page):
    """One campaign."""

    path = "/campaigns"
    add_to_menu = False

    @route("/{id:int}", name="campaign")
    async def show(self, request: Request) -> Response:
        """The page; from here on its script asks `live`."""
        reader(request)
        campaign_id = campaign_of(request)

        def read(connection: db.Connection) -> dict[str, Any]:
            campaign = watch.campaign(connection, campaign_id)
            return {
                "campaign": campaign,
                "details": campaigns.get(connection, campaign_id),
                "revisions": watch.revisions(connection, campaign_id),
                "trail": watch.trail(connection, campaign_id),
                "test_sends": watch.test_sends(connection, campaign_id),
            }

        found = await in_database(read)
        campaign, details = found["campaign"], found["details"]
        return self.render(
            request, "campaign.html", **found, title=heading(campaign), live=as_json(campaign), words=words,
            length=segments.measure(details.text), airflow=_in_airflow(request, campaign),
            form_key=pressed.fresh(), most_test_sends=watch.MAX_TEST_SENDS,
        )  # fmt: skip

    @route("/{id:int}/live", name="campaign-live")
    async def live(self, request: Request) -> Response:
        """What changes on the page, as JSON; `seen`: the `at` of what the page shows."""
        reader(request)
        campaign_id = campaign_of(request)

        async def read() -> Watched:
            return await in_database(lambda connection: watch.campaign(connection, campaign_id))

        campaign = await LIVE.get(campaign_id, _seen(request), read)
        return JSONResponse(as_json(campaign), headers={"Cache-Control": "no-store"})


class OfDag(Page):
    """The tab at each DAG in Airflow."""

    path = "/of-dag"
    add_to_menu = False

    @route("/{dag_id}", name="of-dag")
    async def of_dag(self, request: Request) -> Response:
        """To the campaign's page; of a DAG that is no campaign's, it says so."""
        reader(request)
        found = re.fullmatch(rf"{roster.DAG_PREFIX}([1-9][0-9]{{0,18}})", request.path_params["dag_id"], re.ASCII)
        if found is None:
            return self.render(request, "of_dag.html", title="Campaign", dag_id=request.path_params["dag_id"])
        return RedirectResponse(request.url_for("admin:campaign", id=int(found[1])).path, 303)


def heading(campaign: Any) -> str:
    """What the campaign is called."""
    return campaign.name or f"Campaign {campaign.id}"


def as_json(campaign: Watched) -> dict[str, Any]:
    """What the page shows of the campaign now."""
    return {
        "at": campaign.now.isoformat(),
        "status": campaign.status,
        "status_look": words.STATUSES[campaign.status],
        "standing": words.standing(campaign).as_json(),
        "gateway": words.gateway(campaign.breaker).as_json(),
        "audience": campaign.audience,
        "counts": campaign.counts,
        "rate": f"{campaign.messages_per_second:,.1f}",
        "eta": words.eta(campaign).as_json(),
        "eta_note": words.eta_note(campaign).as_json(),
        "zones": [_zone(campaign, zone) for zone in campaign.zones],
        "errors": [
            {
                "reason": words.reason(error.reason), "status": error.status_code, "count": error.count,
                "last_at": error.last_at.isoformat(), "error": error.error,
            }
            for error in campaign.errors
        ],
        "chart": _chart(campaign),
        "may": may(campaign),
        "is_over": campaign.is_over,
    }  # fmt: skip


def _seen(request: Request) -> datetime | None:
    try:
        seen = datetime.fromisoformat(request.query_params.get("seen", ""))
    except ValueError:
        return None
    return seen if seen.tzinfo else None


def _zone(campaign: Watched, zone: Any) -> dict[str, Any]:
    opens_at = zone.opens_at if zone.opens_at and zone.opens_at > campaign.now else None
    return {
        "timezone": zone.timezone, "clients": zone.clients, "never": zone.never,
        "opens_at": opens_at.isoformat() if opens_at else None,
    }  # fmt: skip


def _chart(campaign: Watched) -> dict[str, Any]:
    """Points as the chart wants them: milliseconds since 1970, and a count; where nothing happened, nothing."""
    series = {
        state: [[round(since.timestamp() * 1_000), count] for since, count in counts.items()]
        for state, counts in campaign.chart.columns.items()
    }
    return {"width_s": campaign.chart.width_s, "series": series}


def may(campaign: Watched) -> dict[str, bool]:
    """Which buttons make sense now. Whether they are so when they are pressed, the domain says."""
    has_begun, is_ended = campaign.opened_at is not None, campaign.now >= campaign.sending_stop
    is_ahead = campaign.status == "scheduled" and campaign.now < campaign.sending_start
    may_have_left = any(campaign.counts[state] for state in ("sending", "sent", "failed", "unknown"))
    can_send = campaign.is_open and has_begun and campaign.status in ("running", "paused", "finished")
    verbs = {
        "pause": campaign.status in ("scheduled", "running") and not is_ended,
        "resume": campaign.status == "paused" and not is_ended,
        "cancel": campaign.status in ("scheduled", "running", "paused") and not is_ended,
        "resend": can_send and campaign.counts["failed"] > 0,
        "settle": campaign.counts["unknown"] > 0,
        "send_again": can_send,
        "edit": campaign.status != "cancelled",
        "test": campaign.status != "cancelled",
        "delete": (is_ahead or campaign.status in ("cancelled", "finished")) and not may_have_left,
    }
    return {verb: possible and campaign.archived_at is None for verb, possible in verbs.items()}


def _in_airflow(request: Request, campaign: Watched) -> str | None:
    """The address of the campaign's DAG in Airflow's own pages; None: it has none so far, or no more."""
    if not Window(campaign.sending_start, campaign.sending_stop).is_relevant(campaign.now):
        return None
    root = request.url_for("admin:index").path.rsplit("/mailing/admin", 1)[0]
    return f"{root}/dags/{roster.dag_id(campaign.id)}"
