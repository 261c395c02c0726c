// For every page: says when the session has ended or something is away, goes on when it is back, and leaves
// Airflow's frame where a link asks for it.
(function () {
    "use strict";
    const RETRY_MS = 5000;
    const banner = document.getElementById("mailing-trouble");
    const reload = document.querySelector("[data-reload-when-alive]");
    const plainFetch = window.fetch.bind(window);
    let timer = null;
    let isLeaving = false; // what is still asked for then ends as if the server were away
    window.addEventListener("beforeunload", function () { isLeaving = true; });
    window.addEventListener("pageshow", function () { isLeaving = false; });

    // The frame around us, if it is Airflow's: same origin, so that we may read its address.
    function outer() {
        try {
            return window.parent !== window && window.parent.location.href ? window.parent : null;
        } catch (error) {
            return null;
        }
    }

    // Trouble

    function show(trouble) {
        if (!banner) return;
        banner.hidden = !trouble;
        banner.querySelectorAll("[data-trouble]").forEach(function (each) {
            each.hidden = each.dataset.trouble !== trouble;
        });
        if (trouble === "session") {
            const here = (outer() || window).location;
            const login = new URL(banner.dataset.login, window.location.href);
            login.searchParams.set("next", here.pathname + here.search + here.hash);
            banner.querySelector("[data-login-link]").href = login.href;
        }
    }

    function note(status) {
        if (isLeaving && status === 0) return;
        const trouble = status === 401 ? "session" : status === 503 ? "away" : status === 0 ? "server" : null;
        if (!trouble && reload) {
            window.location.reload();
            return;
        }
        show(trouble);
        if (trouble && !timer) timer = window.setInterval(ask, RETRY_MS);
        if (!trouble && timer) timer = window.clearInterval(timer) || null;
    }

    function ask() {
        if (!banner) return;
        plainFetch(banner.dataset.alive, {headers: {"X-Requested-With": "XMLHttpRequest"}, cache: "no-store"})
            .then(function (answer) { note(answer.status); }, function () { note(0); });
    }

    // Whatever a page's own scripts ask for, by fetch or by jQuery, tells how things stand.

    window.fetch = function (input, options) {
        const request = new Request(input, options);
        if (new URL(request.url).origin !== window.location.origin) return plainFetch(request);
        request.headers.set("X-Requested-With", "XMLHttpRequest");
        return plainFetch(request).then(function (answer) {
            note(answer.status);
            return answer;
        }, function (error) {
            if (error.name !== "AbortError") note(0);
            throw error;
        });
    };
    if (window.jQuery) {
        window.jQuery(document).on("ajaxComplete", function (event, answer) {
            if (answer.statusText !== "abort") note(answer.status);
        });
    }
    if (reload) timer = window.setInterval(ask, RETRY_MS);

    // Airflow's frame is a sandbox that may not navigate the page around it: that page has to follow the link itself.

    document.addEventListener("click", function (event) {
        const link = event.target.closest && event.target.closest("a[target=_top]");
        const around = outer();
        if (!link || !around || event.defaultPrevented) return;
        event.preventDefault();
        const twin = around.document.createElement("a");
        twin.href = link.href;
        around.document.body.appendChild(twin);
        twin.click();
        twin.remove();
    });
})();
