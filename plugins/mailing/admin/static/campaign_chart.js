// Outcomes over time: a stacked column per span.
import {chart, counting, naming, painted} from "./chart_look.js";
import {local, number} from "./times.js";

const NAMES = {sent: "sent", failed: "failed", unknown: "in doubt"};
const MAX_COLUMNS = 60;

let drawn = null;
let shown = "";

// The same columns for every series, also where nothing happened in between.
function table(data) {
    const states = Object.keys(NAMES).filter(function (state) { return data.series[state].length; });
    const starts = states.flatMap(function (state) { return data.series[state].map(function (point) { return point[0]; }); });
    if (!starts.length) return null;
    const first = Math.min(...starts), narrow = data.width_s * 1000;
    const step = narrow * Math.ceil(((Math.max(...starts) - first) / narrow + 1) / MAX_COLUMNS);
    const place = function (at) { return Math.floor((at - first) / step); };
    const count = place(Math.max(...starts)) + 1;
    const columns = Array.from({length: count}, function (_, index) { return first + index * step; });
    const series = states.map(function (state) {
        const counts = columns.map(function () { return 0; });
        data.series[state].forEach(function (point) { counts[place(point[0])] += point[1]; });
        return {label: NAMES[state], data: counts, barPercentage: 1, categoryPercentage: 0.9, ...painted("mailing-" + state)};
    });
    return {series, labels: columns.map(function (at) { return local(at, step < 60000); })};
}

function begin(element) {
    return chart(element, 260, {
        type: "bar",
        data: {labels: [], datasets: []},
        options: {
            scales: {x: naming({maxTicksLimit: 8}), y: counting(6)},
            plugins: {legend: {position: "top", align: "start"}},
        },
    });
}

// What is there is changed, not made anew: what a viewer points at, or has switched off, stays so.
function change(data, found) {
    data.labels = found.labels;
    data.datasets = found.series.map(function (each) {
        return Object.assign(data.datasets.find(function (old) { return old.label === each.label; }) || {}, each);
    });
}

export function draw(element, empty, data) {
    const found = table(data);
    element.hidden = !found;
    empty.hidden = Boolean(found);
    const now = JSON.stringify(found);
    if (!found || now === shown) return;
    shown = now;
    const total = found.series.map(function (each) { return `${number(each.data.reduce((a, b) => a + b, 0))} ${each.label}`; });
    element.setAttribute("aria-label", `Outcomes over time: ${total.join(", ")}`);
    element.removeAttribute("aria-labelledby");
    drawn = drawn || begin(element);
    if (!drawn) return;
    change(drawn.data, found);
    drawn.update("none");
}
