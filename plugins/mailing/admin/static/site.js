// For every page: says when the session has ended or something is away, goes on when it is back, sends no form before,
// and leaves Airflow's frame where a link asks for it.
(function () {
    "use strict";
    const RETRY_MS = 5000, PATIENCE_MS = 15000;
    const banner = document.getElementById("mailing-trouble");
    const reload = document.querySelector("[data-reload-when-alive]");
    const plainFetch = window.fetch.bind(window);
    let timer = null;
    let isTyped = false; // something that would be lost by leaving the page
    let isLeaving = false; // what is still asked for then ends as if the server were away
    let troubled = -Infinity; // when something was last found wrong: what was asked before tells nothing of the time since
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

    function words(trouble) {
        return banner.querySelector(`[data-trouble=${trouble === "session" && isTyped ? "typed" : trouble}]`);
    }

    function show(trouble) {
        if (!banner) return;
        const shown = trouble && words(trouble);
        banner.hidden = !trouble;
        banner.querySelectorAll("[data-trouble]").forEach(function (each) { each.hidden = each !== shown; });
        if (trouble === "session") {
            const here = (outer() || window).location;
            const login = new URL(banner.dataset.login, window.location.href);
            login.searchParams.set("next", here.pathname + here.search + here.hash);
            banner.querySelectorAll("[data-login-link]").forEach(function (link) { link.href = login.href; });
        }
    }

    function troubleOf(status) {
        return status === 401 ? "session" : status === 503 ? "away" : status === 0 ? "server" : null;
    }

    function note(status, asked) {
        if (isLeaving && status === 0) return;
        const trouble = troubleOf(status);
        if (!trouble && asked < troubled) return;
        if (trouble) troubled = performance.now();
        if (!trouble && reload) {
            window.location.reload();
            return;
        }
        show(trouble);
        if (trouble && !timer) timer = window.setInterval(ask, RETRY_MS);
        if (!trouble && timer) {
            timer = window.clearInterval(timer) || null;
            document.querySelectorAll("[data-unsent]").forEach(function (said) { tell(said, "back"); });
        }
    }

    // What is wrong, or null.
    function ask() {
        if (!banner) return Promise.resolve(null);
        const asked = performance.now();
        const how = {headers: {"X-Requested-With": "XMLHttpRequest"}, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS)};
        return plainFetch(banner.dataset.alive, how)
            .then(function (answer) { return answer.status; }, function () { return 0; })
            .then(function (status) {
                note(status, asked);
                return troubleOf(status);
            });
    }

    // Forms. What is sent when it cannot be taken is answered by another page, without what was typed: so ask first.
    // What the page is told by `alive` brings a cookie, too, if the browser has lost the one that the form's token is of.

    const asking = new WeakSet(), well = new WeakSet();

    function tell(said, trouble) {
        const copy = words(trouble).cloneNode(true);
        copy.removeAttribute("data-trouble");
        copy.hidden = false;
        said.replaceChildren(copy);
        said.classList.toggle("text-danger", trouble !== "back");
    }

    function refuse(place, trouble) {
        let said = place.querySelector(":scope > [data-unsent]");
        if (!trouble) return said && said.remove();
        if (!said) {
            said = document.createElement("div");
            said.dataset.unsent = "";
            said.className = "w-100";
            said.setAttribute("role", "alert");
            place.append(said);
        }
        tell(said, trouble);
        said.prepend("Nothing was sent. ");
    }

    function renew(form) {
        const kept = /(?:^|; )starlette_admin_csrftoken=([^;]*)/.exec(document.cookie);
        if (kept && form.elements.csrftoken) form.elements.csrftoken.value = decodeURIComponent(kept[1]);
    }

    function isPosted(form) {
        return (form.getAttribute("method") || "").toLowerCase() === "post"; // form.method may be a field of that name
    }

    document.addEventListener("input", function (event) {
        if (event.target.form && isPosted(event.target.form)) isTyped = true;
    });

    // Before all who listen for what is sent: they act as if it were.
    window.addEventListener("submit", function (event) {
        const form = event.target, button = event.submitter;
        if (!banner || !isPosted(form) || well.has(form)) return;
        event.preventDefault();
        event.stopImmediatePropagation();
        if (asking.has(form)) return;
        asking.add(form);
        if (button) button.classList.add("btn-loading");
        ask().then(function (trouble) {
            asking.delete(form);
            if (button) button.classList.remove("btn-loading");
            if (trouble === "session") isTyped = true;
            show(trouble);
            refuse(button ? button.parentElement : form, trouble);
            if (trouble) return;
            renew(form);
            well.add(form);
            form.requestSubmit(button);
            well.delete(form);
        });
    }, true);

    // Whatever a page's own scripts ask for, by fetch or by jQuery, tells how things stand.

    window.fetch = function (input, options) {
        const request = new Request(input, options);
        if (new URL(request.url).origin !== window.location.origin) return plainFetch(request);
        request.headers.set("X-Requested-With", "XMLHttpRequest");
        const asked = performance.now();
        return plainFetch(request).then(function (answer) {
            note(answer.status, asked);
            return answer;
        }, function (error) {
            if (error.name !== "AbortError") note(0, asked);
            throw error;
        });
    };
    if (window.jQuery) {
        window.jQuery(document).on("ajaxSend", function (event, answer) {
            answer.asked = performance.now();
        }).on("ajaxComplete", function (event, answer) {
            if (answer.statusText !== "abort") note(answer.status, answer.asked);
        });
    }
    if (reload) timer = window.setInterval(ask, RETRY_MS);

    // Airflow's frame is a sandbox that may neither navigate the page around it nor open another: that page has to follow
    // the link itself.

    document.addEventListener("click", function (event) {
        const link = event.target.closest && event.target.closest("a[target=_top], a[target=_blank]");
        const around = outer();
        if (!link || !around || event.defaultPrevented) return;
        event.preventDefault();
        const twin = around.document.createElement("a");
        twin.href = link.href;
        if (link.target === "_blank") twin.target = "_blank";
        around.document.body.appendChild(twin);
        twin.click();
        twin.remove();
    });
})();
