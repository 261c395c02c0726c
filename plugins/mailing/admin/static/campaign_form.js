// The form: times in its zone and in UTC, the text's length, the picker of tags, and whom the campaign would reach.
import "./dialogs.js";
import {measure} from "./segments.js";
import {moments, number, row, showMoments, time, utc} from "./times.js";

const PATIENCE_MS = 500;
const $ = function (id) { return document.getElementById(id); };
const form = $("campaign-form");

// Times: what is typed is of the form's zone. Which moment that is, the server says; here it is only shown.

const ENDS = ["sending_start", "sending_stop"];
const ZONE = $("timezone").value;

function showMoment(name) {
    const typed = $(name).value, which = $(`${name}_fold`), said = form.querySelector(`[data-utc-of=${name}]`);
    const found = typed ? moments(typed, ZONE) : [], isTwice = found.length > 1;
    which.hidden = !isTwice;
    if (!isTwice) which.value = "";
    [...which.options].slice(1).forEach(function (option, index) {
        option.textContent = option.dataset.word + (isTwice ? `: ${utc(found[index])}` : "");
    });
    const at = isTwice ? found[which.value] : found[0];
    if (isTwice && which.value === "") said.textContent = `Clocks in ${ZONE} show this twice.`;
    else if (at !== undefined) said.textContent = `= ${utc(at)}`;
    else said.textContent = typed ? `There is no such time in ${ZONE}: its clocks are set forward then.` : "";
}

ENDS.forEach(function (name) {
    $(name).addEventListener("input", function () { showMoment(name); });
    $(`${name}_fold`).addEventListener("input", function () { showMoment(name); });
    showMoment(name);
});

// The text's length

const BASIC = JSON.parse(form.dataset.basic), EXTENSION = JSON.parse(form.dataset.extension);

function showLength() {
    const length = measure($("text").value, BASIC, EXTENSION), help = $("text-help");
    help.textContent = `${number(length.characters)} of ${help.dataset.max} characters; ${length.segments} SMS (${length.name}, ${length.left} left in the last)`;
    help.classList.toggle("text-danger", length.characters > Number(help.dataset.max));
}

$("text").addEventListener("input", showLength);
showLength();

// Tags: a picker over the plain field, which stays what is sent.

function pickTags() {
    const plain = $("tags"), select = document.createElement("select");
    if (!window.jQuery || !window.jQuery.fn.select2) return;
    select.multiple = true;
    select.id = "tags-picker";
    select.className = plain.className;
    select.setAttribute("aria-describedby", plain.getAttribute("aria-describedby"));
    plain.value.split(/[\s,;]+/).filter(Boolean).forEach(function (name) { select.append(new Option(name, name, true, true)); });
    plain.after(select);
    plain.type = "hidden";
    form.querySelector("label[for=tags]").htmlFor = select.id;
    window.jQuery(select).select2({
        width: "100%",
        placeholder: "Type a part of a tag's name",
        ajax: {
            url: form.dataset.tags, dataType: "json", delay: 250,
            data: function (asked) { return {q: asked.term || ""}; },
            processResults: function (names) { return {results: names.map(function (name) { return {id: name, text: name}; })}; },
        },
    }).on("change", function () {
        plain.value = window.jQuery(select).val().join(" ");
        plan();
    });
    const search = select.nextElementSibling && select.nextElementSibling.querySelector("textarea, input");
    if (search) search.setAttribute("aria-label", "Tags");
}

// Whom it would reach

let timer = null, asking = null;

function reached(found) {
    if (!found.audience) return "Nobody matches.";
    if (found.never) return `${number(found.never)} of ${number(found.audience)} cannot be reached before the stop.`;
    return `All ${number(found.audience)} can be reached before the stop.`;
}

function fill(id, rows) {
    $(id).replaceChildren(...rows);
    $(`${id}-box`).hidden = !rows.length;
}

function show(told) {
    const found = told.preview;
    $("size").textContent = told.audience === null ? "" : `${number(told.audience)} ${told.audience === 1 ? "client matches" : "clients match"}.`;
    const hasWindow = $("sending_start").value && $("sending_stop").value;
    $("preview-said").textContent = found ? reached(found)
        : hasWindow ? `Not known yet: ${Object.values(told.errors)[0]}.` : "Choose a window to see whom it would reach.";
    fill("preview-zones", found ? found.zones.map(function (zone) {
        return row([zone.timezone, number(zone.clients), zone.opens_at ? time(zone.opens_at) : "not before the stop"], [1]);
    }) : []);
    fill("preview-sample", found ? found.sample.map(function (each) {
        return row([String(each.id), each.phone_number, each.tags.join(", ")]);
    }) : []);
}

async function ask() {
    if (asking) asking.abort();
    asking = new AbortController();
    try {
        const answer = await fetch(form.dataset.preview, {method: "POST", body: new FormData(form), signal: asking.signal});
        if (answer.ok) show(await answer.json());
    } catch (error) { /* aborted, or told by site.js; the button does it, too */ }
}

function plan() {
    window.clearTimeout(timer);
    timer = window.setTimeout(ask, PATIENCE_MS);
}

const MATTERS = ["codes", "local_from", "local_to", ...ENDS, ...ENDS.map(function (name) { return `${name}_fold`; })];
form.addEventListener("input", function (event) { if (MATTERS.includes(event.target.name)) plan(); });

pickTags();
showMoments(document);
ask();
const wrong = form.querySelector(".is-invalid:not([type=hidden])") || $("wrong");
if ($("wrong")) wrong.focus();
