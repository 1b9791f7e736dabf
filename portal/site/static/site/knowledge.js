// Uploads: files are dropped or chosen, and sent one after the other, each with its own progress.
"use strict";

document.querySelectorAll("form[data-drop]").forEach((form) => {
    const words = JSON.parse(document.getElementById("drop-words").textContent);
    const input = form.querySelector("input[type=file]");
    const list = form.querySelector("ul");
    const waiting = [];
    let busy = false;

    const take = (files) => {
        for (const file of files) {
            const line = document.createElement("li");
            const name = document.createElement("strong");
            const state = document.createElement("span");
            name.textContent = file.name;
            state.textContent = words.waiting;
            line.append(name, " ", state);
            list.append(line);
            waiting.push({ file, state, line });
        }
        if (!busy) sendNext();
    };

    const sendNext = async () => {
        const next = waiting.shift();
        busy = next !== undefined;
        if (!busy) return;
        const refusal = await send(form, next.file, (text) => { next.state.textContent = text; }, words);
        next.state.textContent = refusal || words.added;
        next.line.className = refusal ? "fh-wrong" : "";
        sendNext();
    };

    form.addEventListener("submit", (event) => {
        event.preventDefault();
        take(input.files);
        input.value = "";
    });
    // On its way down: the theme's own listener wants a text field beside the input.
    form.addEventListener("change", (event) => {
        event.stopPropagation();
        take(input.files);
        input.value = "";
    }, true);
    form.addEventListener("dragover", (event) => {
        event.preventDefault();
        form.classList.add("fh-drop-over");
    });
    form.addEventListener("dragleave", () => form.classList.remove("fh-drop-over"));
    form.addEventListener("drop", (event) => {
        event.preventDefault();
        form.classList.remove("fh-drop-over");
        take(event.dataTransfer.files);
    });
});

// Resolves to why the file was refused, or to nothing.
function send(form, file, tell, words) {
    const data = new FormData();
    data.append("csrfmiddlewaretoken", form.elements.csrfmiddlewaretoken.value);
    data.append("file", file, file.name);
    const request = new XMLHttpRequest();
    return new Promise((resolve) => {
        request.upload.addEventListener("progress", (event) => {
            const percent = Math.floor((100 * event.loaded) / event.total);
            tell(percent < 100 ? words.sending.replace("{percent}", percent) : words.checking);
        });
        request.addEventListener("error", () => resolve(words.failed));
        request.addEventListener("load", () => {
            if (request.status === 200) return resolve("");
            try {
                const { refused } = JSON.parse(request.responseText);
                resolve(Object.values(refused)[0] || words.failed);
            } catch {
                resolve(words.failed);
            }
        });
        request.open("POST", form.action);
        request.setRequestHeader("Accept", "application/json");
        request.send(data);
    });
}
