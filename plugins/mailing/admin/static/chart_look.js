// How every chart looks: in Tabler's colours, again when the look changes; nothing in it moves.
// Chart.js is vendor/chart.umd.min.js. It paints on a canvas: names in charts are never read as HTML.
const Chart = window.Chart;
const known = new Map();

// What Tabler's variable says at present, as a canvas understands it.
function colour(name) {
    if (!known.has(name)) known.set(name, getComputedStyle(document.documentElement).getPropertyValue("--tblr-" + name).trim());
    return known.get(name);
}

function dress() {
    known.clear();
    Chart.defaults.color = colour("body-color");
    Chart.defaults.borderColor = colour("border-color");
    Object.values(Chart.instances).forEach(function (chart) { chart.update("none"); });
}

// A dataset's colours, each by its name in Tabler.
export function painted(name) {
    const paint = function () { return colour(name); };
    return {backgroundColor: paint, hoverBackgroundColor: paint};
}

export function surface() {
    return colour("bg-surface");
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

if (Chart) {
    Chart.defaults.animation = false;
    Chart.defaults.maintainAspectRatio = false;
    Chart.defaults.locale = "en-US";  // as times.number
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Object.assign(Chart.defaults.interaction, {mode: "index", intersect: false});
    Object.assign(Chart.defaults.plugins.legend.labels, {boxWidth: 12, boxHeight: 12});
    Chart.defaults.plugins.tooltip.filter = function (item) { return item.raw > 0; };
    dress();
    let look = document.documentElement.getAttribute("data-bs-theme");
    new MutationObserver(function () {
        const now = document.documentElement.getAttribute("data-bs-theme");
        if (now !== look) dress();
        look = now;
    }).observe(document.documentElement, {attributes: true, attributeFilter: ["data-bs-theme"]});
}
