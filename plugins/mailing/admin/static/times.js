// Moments and waits as the viewer reads them: in the zone that the page says (look.js), with UTC in the title.

export const ZONE = document.querySelector("meta[name=mailing-zone]").content;

function parts(seconds, zone) {
    return {
        year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
        ...(seconds ? {second: "2-digit"} : {}), timeZone: zone,
    };
}

function day(at) {
    return new Intl.DateTimeFormat("en-GB", {timeZone: ZONE}).format(at); // 31/12/2030
}

export function local(iso, seconds) {
    const at = new Date(iso), then = day(at), today = day(new Date());
    const shown = parts(seconds, ZONE);
    if (then.slice(6) === today.slice(6)) delete shown.year;
    if (then === today) { delete shown.month; delete shown.day; }
    return new Intl.DateTimeFormat("en-GB", shown).format(at);
}

// What a zone's clocks show at a moment, less the moment; in milliseconds.
function offset(at, zone) {
    const shown = new Intl.DateTimeFormat("en-CA", {
        timeZone: zone, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
    }).formatToParts(at);
    const part = function (type) { return shown.find(function (each) { return each.type === type; }).value; };
    return Date.parse(`${part("year").padStart(4, "0")}-${part("month")}-${part("day")}T${part("hour")}:${part("minute")}:${part("second")}Z`) - at;
}

// As wall_clock.moments has it: none in spring, two in autumn. No zone sets its clocks twice within two days.
export function moments(wall, zone) {
    const shown = Date.parse(`${wall}Z`), day_ms = 86400000;
    if (Number.isNaN(shown)) return [];
    const found = [-day_ms, day_ms].map(function (away) { return shown - offset(shown + away, zone); });
    return [...new Set(found)].filter(function (at) { return at + offset(at, zone) === shown; }).sort(function (a, b) { return a - b; });
}

export function utc(iso) {
    return new Intl.DateTimeFormat("en-GB", parts(false, "UTC")).format(new Date(iso)) + " UTC";
}

export function number(value) {
    return Number(value).toLocaleString("en-US");
}

// As campaign_words.duration has it.
export function duration(seconds) {
    const left = Math.max(0, Math.round(seconds));
    if (left < 60) return `${left} s`;
    if (left < 600) return `${Math.floor(left / 60)} min ${String(left % 60).padStart(2, "0")} s`;
    if (left < 3600) return `${Math.round(left / 60)} min`;
    if (left < 172800) return `${Math.floor(left / 3600)} h ${String(Math.floor(left % 3600 / 60)).padStart(2, "0")} min`;
    return `${Math.floor(left / 86400)} days`;
}

export function time(iso, seconds) {
    const element = document.createElement("time");
    element.dateTime = iso;
    element.textContent = local(iso, seconds);
    element.title = utc(iso);
    return element;
}

export function showMoments(root) {
    root.querySelectorAll("time[data-moment]").forEach(function (element) {
        element.textContent = local(element.dateTime, "seconds" in element.dataset);
        element.title = utc(element.dateTime);
    });
}

// A row of a table; each cell is a text, or an element.
export function row(cells, numeric) {
    const made = document.createElement("tr");
    cells.forEach(function (cell, index) {
        const td = document.createElement("td");
        if ((numeric || []).includes(index)) td.className = "text-end mailing-number";
        td.append(cell === null || cell === undefined ? "" : cell);
        made.append(td);
    });
    return made;
}
