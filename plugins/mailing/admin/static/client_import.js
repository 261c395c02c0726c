// The upload of a client file: with its progress shown, and its CSRF token in a header, so that the server need not read
// all of a large file to find it. Without this script the form works all the same, for files of a few megabytes.
"use strict";
(function () {
    function say(form, text, isError) {
        form.querySelector("[data-mailing-said]").textContent = isError ? "" : text;
        form.querySelector("[data-mailing-error]").textContent = isError ? text : "";
        form.querySelector("input[type=file]").classList.toggle("is-invalid", isError);
    }

    function reason(request) {
        try { return JSON.parse(request.responseText).detail; } catch (error) { return "The server did not answer as it should."; }
    }

    function show(request) {
        const page = new DOMParser().parseFromString(request.responseText, "text/html").getElementById("import");
        if (!page) { return false; }
        document.getElementById("import").replaceWith(document.adoptNode(page));
        (document.getElementById("import-result") || page.querySelector("input[type=file]")).focus();
        return true;
    }

    document.addEventListener("submit", function (event) {
        const form = event.target;
        if (form.id !== "import-form") { return; }
        event.preventDefault();
        const progress = form.querySelector("progress"), button = form.querySelector("button"), request = new XMLHttpRequest();
        function end(text) {
            button.disabled = false;
            progress.hidden = true;
            say(form, text, true);
        }
        request.open("POST", form.action);
        request.setRequestHeader("X-CSRFToken", form.elements.csrftoken.value);
        request.setRequestHeader("X-Requested-With", "XMLHttpRequest");
        request.upload.addEventListener("progress", function (sent) {
            progress.value = sent.lengthComputable ? sent.loaded / sent.total : 0;
            if (progress.value === 1) { say(form, "Uploaded. The rows are being written…", false); }
        });
        request.addEventListener("load", function () { if (!show(request)) { end(reason(request)); } });
        request.addEventListener("error", function () { end("The connection was lost: nothing of the file may have been imported. Import it again."); });
        button.disabled = true;
        progress.hidden = false;
        say(form, "Uploading…", false);
        request.send(new FormData(form));
    });

    document.addEventListener("click", function (event) {
        const button = event.target.closest("[data-mailing-download]");
        if (!button) { return; }
        const text = JSON.parse(document.getElementById(button.dataset.mailingDownload).textContent);
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([text], {type: "text/csv;charset=utf-8"}));
        link.download = button.dataset.mailingName;
        link.click();
        setTimeout(function () { URL.revokeObjectURL(link.href); }, 10000);
    });
})();
