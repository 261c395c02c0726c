// How every chart looks: in Tabler's colours, again when the look changes; nothing in it moves.
// Chart.js is vendor/chart.umd.min.js. It paints on a canvas: names in charts are never read as HTML.
const Chart = window.Chart;
const known = new Map();

// What a variable of the style sheets says at present, as a canvas understands it.
function colour(name) {
    if (!known.has(name)) known.set(name, getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim());
    return known.get(name);
}

// An option of Chart.js that is asked for again with every drawing.
export function paint(name) {
    return function () { return colour(name); };
}

export function painted(name) {
    return {backgroundColor: paint(name), hoverBackgroundColor: paint(name)};
}

// An axis that counts, and one that names; `most` marks on it at the most.
export function counting(most) {
    return {stacked: true, beginAtZero: true, border: {display: false}, ticks: {precision: 0, maxTicksLimit: most}};
}

export function naming(ticks) {
    return {stacked: true, grid: {display: false}, ticks: {maxRotation: 0, autoSkipPadding: 16, ...ticks}};
}

// Fills an element of the page; null where Chart.js could not be loaded.
export function chart(element, height, config) {
    if (!Chart) return null;
    const canvas = document.createElement("canvas");
    Object.assign(element.style, {position: "relative", minWidth: 0, height: `${height}px`});
    element.replaceChildren(canvas);
    return new Chart(canvas, config);
}

function dress(defaults) {
    const text = paint("tblr-body-color"), line = paint("tblr-border-color");
    Object.assign(defaults, {animation: false, maintainAspectRatio: false, locale: "en-US"});  // as times.number
    defaults.font.family = getComputedStyle(document.body).fontFamily;
    defaults.scale.ticks.color = text;
    defaults.scale.grid.color = defaults.scale.border.color = line;
    Object.assign(defaults.interaction, {mode: "index", intersect: false});
    Object.assign(defaults.plugins.legend.labels, {boxWidth: 12, boxHeight: 12, color: text});
    Object.assign(defaults.plugins.tooltip, {
        backgroundColor: "rgba(17, 24, 39, .95)", borderColor: line, borderWidth: 1, padding: 8, boxPadding: 4,
        multiKeyBackground: "transparent", filter: function (item) { return item.raw > 0; },
    });
}

function dressAgain() {
    known.clear();
    Object.values(Chart.instances).forEach(function (each) { each.update("none"); });
}

if (Chart) {
    dress(Chart.defaults);
    let look = document.documentElement.getAttribute("data-bs-theme");
    new MutationObserver(function () {
        const now = document.documentElement.getAttribute("data-bs-theme");
        if (now !== look) dressAgain();
        look = now;
    }).observe(document.documentElement, {attributes: true, attributeFilter: ["data-bs-theme"]});
}
