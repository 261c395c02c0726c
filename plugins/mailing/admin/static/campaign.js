// A campaign's page: asks one address how things stand, and shows it. Slower where the answer is slow or nobody looks.
import "./dialogs.js";
import {draw} from "./campaign_chart.js";
import {duration, local, number, row, showMoments, time} from "./times.js";

const POLL_MS = 2000, HIDDEN_MS = 30000, TROUBLE_MS = 10000, SLOWNESS = 10, SPOKEN_MS = 30000;
const $ = function (id) { return document.getElementById(id); };
const source = $("live");

let now = JSON.parse(source.textContent);
let heardAt = performance.now();
let spokenAt = 0, spoken = "";
let timer = null;

// Sentences

function filled(words) {
    const wait = words.wait_s === null ? 0 : words.wait_s - (performance.now() - heardAt) / 1000;
    return words.text.replace(/\{\{|\}\}|\{(\w+)\}/g, function (gap, name) {
        if (gap === "{{" || gap === "}}") return gap[0];
        return name === "wait" ? duration(wait) : local(words.moments[name]);
    });
}

function say(id, words) {
    $(id).textContent = filled(words);
    $(`${id}-dot`).className = `status-dot me-2 ${words.tone ? "bg-" + words.tone : ""}`;
}

function speak() {
    const news = `${now.standing.text}${now.gateway.text}`;
    if (news === spoken && performance.now() - spokenAt < SPOKEN_MS) return;
    spoken = news;
    spokenAt = performance.now();
    $("spoken").textContent = `${filled(now.standing)} ${filled(now.gateway)} ${number(now.counts.sent)} of ${number(now.audience)} sent.`;
}

// Figures

// What a dialog says stays while it is open, for that is what is confirmed: the server refuses another figure.
function living(selector) {
    return [...document.querySelectorAll(selector)].filter(function (each) { return !each.closest("dialog[open]"); });
}

function showFigures() {
    const figures = {audience: number(now.audience), sent: number(now.counts.sent), rate: now.rate, eta: filled(now.eta), eta_note: filled(now.eta_note)};
    living("[data-figure]").forEach(function (each) { each.textContent = figures[each.dataset.figure]; });
    living("[data-count]").forEach(function (each) { each.textContent = number(now.counts[each.dataset.count]); });
    living("[data-expects]").forEach(function (each) { each.value = now.counts[each.dataset.expects]; });
    document.querySelectorAll("[data-legend]").forEach(function (each) { each.hidden = !now.counts[each.dataset.legend]; });
    document.querySelectorAll("[data-until-open]").forEach(function (each) { each.hidden = now.audience > 0; });
    const told = [];
    document.querySelectorAll("[data-bar]").forEach(function (each) {
        const count = now.counts[each.dataset.bar];
        each.style.width = `${now.audience ? 100 * count / now.audience : 0}%`;
        if (count) told.push(`${number(count)} ${each.dataset.word}`);
    });
    document.querySelector("[data-live-bar]").setAttribute("aria-label", told.join(", ") || "nobody so far");
}

function showButtons() {
    document.querySelectorAll("[data-may]").forEach(function (each) { each.hidden = !now.may[each.dataset.may]; });
    document.querySelectorAll("[data-may-choose]").forEach(function (each) {
        each.disabled = !now.may[each.dataset.mayChoose];
        if (each.disabled) each.checked = false;
    });
    document.querySelectorAll("[data-unless]").forEach(function (each) { each.hidden = now.may[each.dataset.unless]; });
    const status = document.querySelector("[data-live-status]");
    status.textContent = now.status;
    status.className = `badge ${now.status_look}`;
}

function fill(id, rows) {
    $(id).replaceChildren(...rows);
    $(`${id}-box`).hidden = !rows.length;
    $(`${id}-empty`).hidden = rows.length > 0;
}

function showTables() {
    fill("errors", now.errors.map(function (error) {
        const made = row([error.reason, number(error.count), time(error.last_at, true)], [1]);
        made.firstChild.title = error.error || "";
        return made;
    }));
    if (!$("zones")) return;
    fill("zones", now.zones.map(function (zone) {
        const hours = document.createElement("span");
        if (zone.never) hours.append("do not open before the stop");
        else if (zone.opens_at) hours.append("open at ", time(zone.opens_at));
        else hours.append("are open");
        return row([zone.timezone, number(zone.clients), hours], [1]);
    }));
}

function show() {
    say("standing", now.standing);
    say("gateway", now.gateway);
    showFigures();
    showButtons();
    showTables();
    speak();
    draw($("chart"), $("chart-empty"), now.chart);
}

// Asking

async function ask() {
    timer = null;
    const began = performance.now();
    let wait = TROUBLE_MS;  // what is wrong is told by site.js
    try {
        const answer = await fetch(`${source.dataset.url}?seen=${encodeURIComponent(now.at)}`, {cache: "no-store"});
        if (answer.status === 404) return;
        if (answer.ok) {
            now = await answer.json();
            heardAt = performance.now();
            show();
            wait = Math.max(POLL_MS, SLOWNESS * (heardAt - began));
        }
    } catch (error) { /* asked again */ }
    plan(wait);
}

function plan(wait) {
    if (now.is_over || timer) return;
    timer = window.setTimeout(ask, document.hidden ? Math.max(wait, HIDDEN_MS) : wait);
}

document.addEventListener("visibilitychange", function () {
    if (document.hidden || !timer) return;
    window.clearTimeout(timer);
    ask();
});

// Waits are counted down between two answers.
window.setInterval(function () {
    if (document.hidden) return;
    if (now.standing.wait_s !== null) say("standing", now.standing);
    if (now.gateway.wait_s !== null) say("gateway", now.gateway);
}, 1000);

document.querySelectorAll("dialog").forEach(function (dialog) { dialog.addEventListener("close", showFigures); });

const clients = $("test-clients");
if (clients) {
    clients.addEventListener("input", function () {
        const ids = new Set(clients.value.match(/\d+/g));
        $("test-count").textContent = !ids.size ? "Nobody is named so far."
            : ids.size > 10 ? `${number(ids.size)} clients: wanted at most 10.` : `It goes to ${ids.size} client${ids.size > 1 ? "s" : ""}, now.`;
    });
}

showMoments(document);
show();
plan(POLL_MS);
