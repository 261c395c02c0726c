// Confirmations: <dialog>s, which the browser itself makes modal, traps the focus in, and closes by Escape.

document.addEventListener("click", function (event) {
    const opener = event.target.closest("[data-dialog]");
    if (opener) document.getElementById(opener.dataset.dialog).showModal();
    const closer = event.target.closest("[data-close]");
    if (closer) closer.closest("dialog").close();
    if (event.target instanceof HTMLDialogElement) event.target.close();  // beside it
});

// Pressed twice, sent once.
document.addEventListener("submit", function (event) {
    const form = event.target;
    if (!("once" in form.dataset)) return;
    if (form.dataset.once === "sent") {
        event.preventDefault();
        return;
    }
    form.dataset.once = "sent";
    form.querySelectorAll("[data-confirm]").forEach(function (button) { button.classList.add("btn-loading"); });
});

// Gone back to: what was sent may be sent again.
window.addEventListener("pageshow", function () {
    document.querySelectorAll("[data-once]").forEach(function (form) {
        form.dataset.once = "";
        form.querySelectorAll(".btn-loading").forEach(function (button) { button.classList.remove("btn-loading"); });
    });
});
