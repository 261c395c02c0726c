// Lists: the page size, and the figure that a confirmation names.
"use strict";
$(function () {
    document.addEventListener("change", function (event) {
        if (event.target.matches("[data-mailing-go]")) { window.location.assign(event.target.value); }
    });

    const modal = document.getElementById("modal-action");
    if (!modal) { return; }
    // After the library has put the form in: its own listener is older than this one.
    modal.addEventListener("show.bs.modal", function () {
        const chosen = Array.from(document.querySelectorAll("[data-sa-hook='row-checkbox']:checked"), (box) => box.closest("tr"));
        modal.querySelectorAll("[data-mailing-figure]").forEach(function (figure) {
            const state = figure.dataset.mailingFigure;
            const rows = state ? chosen.filter((row) => row.querySelector(`[data-state='${state}']`)) : chosen;
            figure.textContent = rows.length.toLocaleString("en");
        });
    });
});
