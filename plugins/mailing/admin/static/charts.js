// Draws every element with data-chart out of its data-figures.
import {chart, counting, naming, painted, surface} from "./chart_look.js";

const COLOURS = {
    pending: "azure", sending: "blue", sent: "green", failed: "red",
    unknown: "orange", expired: "yellow", cancelled: "secondary", excluded: "purple",
};

function donut(figures) {
    const states = Object.keys(figures).filter(function (state) { return figures[state]; });
    const paints = states.map(function (state) { return painted(COLOURS[state]).backgroundColor; });
    return {
        type: "doughnut",
        data: {
            labels: states,
            datasets: [{
                data: states.map(function (state) { return figures[state]; }),
                backgroundColor: function (context) { return paints[context.dataIndex](); },
                hoverBackgroundColor: function (context) { return paints[context.dataIndex](); },
                borderColor: surface, hoverBorderColor: surface,
            }],
        },
        options: {cutout: "65%", interaction: {mode: "nearest", intersect: true}, plugins: {legend: {display: false}}},
    };
}

function bars(figures, lies) {
    const names = naming(lies ? {autoSkip: false} : {callback: function (value) { return this.getLabelForValue(value).slice(5); }});
    return {
        type: "bar",
        data: {
            labels: figures.categories,
            datasets: figures.series.map(function (each) {
                return {label: each.name, data: each.data, barPercentage: 1, categoryPercentage: 0.8, ...painted(COLOURS[each.name])};
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
