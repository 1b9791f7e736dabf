// Small behaviours of every page: copy buttons, forms that are sent once, menus that close.
"use strict";

document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) {
        const source = document.getElementById(button.dataset.copy);
        const label = button.textContent;
        if (await copyText(source)) {
            button.textContent = button.dataset.copied;
            setTimeout(() => { button.textContent = label; }, 2000);
        }
    }
    document.querySelectorAll("details.fh-user[open], details.fh-switcher[open]").forEach((menu) => {
        if (!menu.contains(event.target)) menu.open = false;
    });
});

async function copyText(source) {
    // The clipboard interface is missing on plain http: selecting and copying works there too.
    if (navigator.clipboard && window.isSecureContext) {
        await navigator.clipboard.writeText(source.textContent);
        return true;
    }
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
}

document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    document.querySelectorAll("details.fh-user[open], details.fh-switcher[open]").forEach((menu) => {
        menu.open = false;
        menu.querySelector("summary").focus();
    });
});

document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("[data-once]")) return;
    const button = form.querySelector("[data-busy]");
    button.textContent = button.dataset.busy;
    // After this turn, so that the button's own value is still sent.
    setTimeout(() => { button.disabled = true; }, 0);
});

// The page is hidden until the theme's script has started, so a field could not take the focus.
document.addEventListener("alpine:initialized", () => {
    requestAnimationFrame(() => document.querySelector("[autofocus]")?.focus());
});

// Fields that belong to one choice alone, such as a schedule's: the others are out of sight.
document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-chooses]").forEach((select) => {
        const show = () => document.querySelectorAll("[data-chosen]").forEach((field) => {
            const [name, value] = field.dataset.chosen.split(":");
            if (name === select.dataset.chooses) field.closest(".fh-field").hidden = value !== select.value;
        });
        select.addEventListener("change", show);
        show();
    });
});

// A page taken from the browser's history must not keep its button busy.
window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); });

// A part of a page that is asked for anew while it is looked at; without scripts, reload the page.
document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-live]").forEach(keepLive);
});

function keepLive(part) {
    const timer = setInterval(async () => {
        if (document.hidden) return;
        let answer;
        try {
            answer = await fetch(part.dataset.live, { redirect: "manual" });
        } catch {
            return;
        }
        if (answer.status >= 500) return;
        if (!answer.ok) {
            // Logged out, or the thing is gone: what is shown stays until the page is left.
            clearInterval(timer);
            return;
        }
        const text = await answer.text();
        if (text === part.dataset.text) return;
        part.dataset.text = text;
        const focused = part.contains(document.activeElement) ? document.activeElement : null;
        const link = focused?.getAttribute("href");
        part.innerHTML = text;
        if (link) part.querySelector(`a[href="${CSS.escape(link)}"]`)?.focus();
        else if (focused?.matches("[role=region]")) part.querySelector("[role=region]")?.focus();
    }, 2000);
}
