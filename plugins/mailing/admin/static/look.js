// Before anything is painted: dark or light, and the viewer's time zone. As Airflow has them where it frames us, else as
// the system does.
(function () {
    "use strict";
    const root = document.documentElement;
    const system = window.matchMedia("(prefers-color-scheme: dark)");

    function airflow() {
        try {
            return window.parent !== window ? window.parent.document.documentElement : null;
        } catch (error) {
            return null; // another site's frame
        }
    }

    function apply() {
        const around = airflow();
        const theirs = around && ["dark", "light"].find(function (name) { return around.classList.contains(name); });
        root.setAttribute("data-bs-theme", theirs || (system.matches ? "dark" : "light"));
    }

    apply();
    system.addEventListener("change", apply);
    if (airflow()) {
        new MutationObserver(apply).observe(airflow(), {attributes: true, attributeFilter: ["class"]});
    }

    function zone() {
        const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
        try {
            const chosen = (window.localStorage.getItem("timezone") || "").replace(/"/g, ""); // in Airflow's own menu
            return chosen.includes("/") || chosen === "UTC" ? Intl.DateTimeFormat("en", {timeZone: chosen}).resolvedOptions().timeZone : own;
        } catch (error) {
            return own; // no storage, or no such zone
        }
    }

    function cookie() {
        const found = document.cookie.split("; ").find(function (each) { return each.startsWith("timezone="); });
        return found && found.slice("timezone=".length);
    }

    // The server shows times by this cookie, and says by which zone it did. A page of another one is asked for once more;
    // not the answer to a form, which would be sent again: the next page is right.
    const page = document.querySelector("meta[name=mailing-zone]");
    const chosen = zone();
    if (chosen && cookie() !== chosen) {
        document.cookie = "timezone=" + chosen + "; path=/; max-age=31536000; samesite=lax";
        if (cookie() === chosen && page.content !== chosen && "again" in page.dataset) window.location.reload();
    }
})();
