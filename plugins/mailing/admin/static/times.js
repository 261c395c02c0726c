// Moments and waits as the viewer reads them: in their own zone, with UTC in the title.

export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

function parts(seconds, zone) {
    return {
        year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
        ...(seconds ? {second: "2-digit"} : {}), ...(zone ? {timeZone: zone} : {}),
    };
}

export function local(iso, seconds) {
    const at = new Date(iso), now = new Date();
    const shown = parts(seconds);
    if (at.getFullYear() === now.getFullYear()) delete shown.year;
    if (at.toDateString() === now.toDateString()) { delete shown.month; delete shown.day; }
    return new Intl.DateTimeFormat("en-GB", shown).format(at);
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
