// The list: times in the viewer's zone; what is selected, and what the confirmations say of it.
import "./dialogs.js";
import {number, showMoments} from "./times.js";

showMoments(document);

const boxes = [...document.querySelectorAll("[data-select]")];
const all = document.querySelector("[data-select-all]");

function show() {
    const selected = boxes.filter(function (box) { return box.checked; });
    const left = selected.reduce(function (sum, box) { return sum + Number(box.dataset.left); }, 0);
    document.querySelectorAll("[data-selected-count]").forEach(function (each) { each.textContent = number(selected.length); });
    document.querySelectorAll("[data-selected-left]").forEach(function (each) { each.textContent = number(left); });
    document.querySelectorAll("[data-needs-selection]").forEach(function (each) { each.disabled = !selected.length; });
    document.querySelectorAll("[data-selected-names]").forEach(function (list) {
        list.replaceChildren(...selected.map(function (box) {
            const item = document.createElement("li");
            item.textContent = `${box.dataset.name} (#${box.value})`;
            return item;
        }));
        const form = list.closest("form");
        form.querySelectorAll("input[name=id]").forEach(function (each) { each.remove(); });
        selected.forEach(function (box) {
            const input = document.createElement("input");
            Object.assign(input, {type: "hidden", name: "id", value: box.value});
            form.append(input);
        });
    });
    if (all) {
        all.checked = boxes.length > 0 && selected.length === boxes.length;
        all.indeterminate = selected.length > 0 && selected.length < boxes.length;
    }
}

boxes.forEach(function (box) { box.addEventListener("change", show); });
if (all) {
    all.addEventListener("change", function () {
        boxes.forEach(function (box) { box.checked = all.checked; });
        show();
    });
}
window.addEventListener("pageshow", show);
