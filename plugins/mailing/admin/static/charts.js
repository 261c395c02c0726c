// Draws every element with data-chart out of its data-figures.
import {chart, counting, naming, paint, painted} from "./chart_look.js";

function donut(figures) {
    const states = Object.keys(figures).filter(function (state) { return figures[state]; });
    const paints = states.map(function (state) { return paint("mailing-" + state); });
    const ofPart = function (context) { return paints[context.dataIndex](); };
    const gap = paint("tblr-bg-surface");
    return {
        type: "doughnut",
        data: {
            labels: states,
            datasets: [{
                data: states.map(function (state) { return figures[state]; }),
                backgroundColor: ofPart, hoverBackgroundColor: ofPart, borderColor: gap, hoverBorderColor: gap,
            }],
        },
        options: {
            cutout: "65%", layout: {padding: 12},
            interaction: {mode: "nearest", intersect: true},
            plugins: {legend: {display: false}},
        },
    };
}

// A tag is as long as people make it; a tooltip has it whole.
function shortened(name) {
    return name.length > 20 ? name.slice(0, 19) + "…" : name;
}

function bars(figures, lies) {
    const short = lies ? shortened : function (day) { return day.slice(5); };
    const names = naming({autoSkip: !lies, callback: function (value) { return short(this.getLabelForValue(value)); }});
    return {
        type: "bar",
        data: {
            labels: figures.categories,
            datasets: figures.series.map(function (each) {
                return {label: each.name, data: each.data, barPercentage: 1, categoryPercentage: 0.8, ...painted("mailing-" + each.name)};
            }),
        },
        options: {
            indexAxis: lies ? "y" : "x",
            interaction: {axis: lies ? "y" : "x"},
            scales: lies ? {x: counting(6), y: names} : {x: names, y: counting(7)},
            plugins: {legend: {position: "bottom"}},
        },
    };
}

document.querySelectorAll("[data-chart]").forEach(function (element) {
    const figures = JSON.parse(element.dataset.figures), kind = element.dataset.chart;
    chart(element, element.dataset.height, kind === "donut" ? donut(figures) : bars(figures, kind === "bars"));
});
