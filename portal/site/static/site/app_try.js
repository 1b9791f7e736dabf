// Trying an app: a conversation over the app gateway, streamed, with the sources of each answer.
import { SessionKey, events, fill, post } from "./chat.js";

const root = document.getElementById("app-try");
const words = JSON.parse(document.getElementById("play-words").textContent);
const find = (id) => document.getElementById(id);
const log = find("play-log");
const form = find("play-form");
const input = find("play-input");
const send = find("play-send");
const stop = find("play-stop");
const key = new SessionKey(
    root.dataset.keyUrl, root.querySelector("[name=csrfmiddlewaretoken]").value, words,
);

let conversation = null;
let running = null;
let epoch = 0;

function say(text) { find("play-status").textContent = text; }

function append(element) {
    find("play-welcome")?.remove();
    log.append(element);
    log.scrollTop = log.scrollHeight;
    return element;
}

function made(tag, className, text = "") {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
}

function bubble(role, text) { return append(made("div", `fh-message fh-message-${role}`, text)); }

function busy(on) {
    send.disabled = on;
    stop.hidden = !on;
    log.setAttribute("aria-busy", String(on));
}

// The sources of an answer, folded: each with its document, its score and its text.
function cite(found) {
    if (!found.sources.length) {
        append(made("p", "fh-message-facts", [words.no_sources, found.degraded].join(" ").trim()));
        return;
    }
    const box = made("details", "fh-sources");
    const more = found.left_out ? ` · ${fill(words.left_out, { n: found.left_out })}` : "";
    box.append(made("summary", "", fill(words.sources, { n: found.sources.length }) + more));
    const list = made("ol", "");
    for (const source of found.sources) {
        const item = made("li", "");
        item.append(made("strong", "", source.document), " ",
            made("small", "", fill(words.score, { score: source.score.toFixed(2) })),
            made("p", "", source.text));
        list.append(item);
    }
    box.append(list);
    if (found.degraded) box.append(made("p", "fh-help", found.degraded));
    append(box);
}

// Two buttons under an answer; the one that is pressed takes its rating back.
function rating(message) {
    const row = made("div", "fh-rating");
    const buttons = [["like", 1], ["dislike", -1]].map(([name, value]) => {
        const button = made("button", "fh-button fh-button-small", words[name]);
        button.type = "button";
        button.setAttribute("aria-pressed", "false");
        button.addEventListener("click", () => rate(message, buttons, button, value));
        return button;
    });
    row.append(...buttons);
    append(row);
}

async function rate(message, buttons, pressed, value) {
    const taken = pressed.getAttribute("aria-pressed") === "true";
    try {
        await post(`${root.dataset.rateUrl}${message}/`, { rating: taken ? 0 : value }, key, words);
    } catch (fault) {
        say(fault instanceof TypeError ? words.not_rated : fault.message);
        return;
    }
    for (const button of buttons) {
        button.setAttribute("aria-pressed", String(button === pressed && !taken));
    }
    say(words.rated);
}

function inputs() {
    const values = {};
    for (const field of form.querySelectorAll("[data-input]")) {
        const { input: name, type } = field.dataset;
        if (type === "boolean") values[name] = field.checked;
        else if (field.value !== "") values[name] = type === "number" ? Number(field.value) : field.value;
    }
    return values;
}

function spoken(text, values) {
    const lines = Object.entries(values).map(([name, value]) => `${name}: ${value === true ? words.yes : value}`);
    return [...lines, ...(text ? [text] : [])].join("\n");
}

function take(turn, answer, { name, data }) {
    const body = JSON.parse(data);
    if (name === "error") throw new Error(body.detail || words.broken);
    if (name === "started") turn.message = body.message_id;
    if (name === "started" && root.dataset.mode === "chat") conversation = body.conversation_id;
    if (name === "sources") turn.sources = body;
    if (name === "usage") turn.usage = body;
    if (name === "done") turn.done = body;
    if (name !== "delta") return;
    if (!turn.text) say(words.answering);
    turn.text += body.text;
    // Follow the text, unless the reader has scrolled up.
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    answer.textContent = turn.text;
    if (follows) log.scrollTop = log.scrollHeight;
}

function facts(turn) {
    const found = [];
    if (turn.usage) {
        found.push(fill(words.usage, {
            prompt: turn.usage.prompt_tokens, completion: turn.usage.completion_tokens,
        }));
    }
    if (turn.done?.finish_reason === "length") found.push(words.cut);
    if (turn.stopped) found.push(words.stopped);
    if (turn.done?.disclaimer) found.push(turn.done.disclaimer);
    return found.join(" · ");
}

async function ask(text, values) {
    const controller = new AbortController();
    const mine = epoch;
    running = controller;
    busy(true);
    say(words.waiting);
    bubble("user", spoken(text, values));
    const answer = bubble("assistant", "");
    answer.dataset.streaming = "";
    const turn = { text: "", message: "", sources: null, usage: null, done: null, stopped: false };
    const body = { inputs: values, stream: true, version: Number(root.dataset.version) };
    if (text) body.query = text;
    if (conversation) body.conversation_id = conversation;
    let failure = "";
    try {
        const response = await post(root.dataset.url, body, key, words, controller.signal);
        for await (const event of events(response)) take(turn, answer, event);
        if (!turn.done) failure = words.broken;
    } catch (fault) {
        if (controller.signal.aborted) turn.stopped = true;
        else failure = fault instanceof TypeError ? words.unreachable : fault.message;
    }
    running = null;
    busy(false);
    if (mine !== epoch) return;
    delete answer.dataset.streaming;
    if (!turn.text) answer.remove();
    const said = facts(turn);
    if (said) append(made("p", "fh-message-facts", said));
    if (turn.sources) cite(turn.sources);
    if (root.dataset.rateUrl && turn.done) rating(turn.message);
    if (failure) {
        bubble("failed", failure).setAttribute("role", "alert");
        if (!turn.text && input) input.value = text;
    }
    say(failure ? words.not_done : words.done);
    input?.focus();
}

form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input ? input.value.trim() : "";
    if (running || (input && !text)) return;
    if (input) input.value = "";
    ask(text, inputs());
});
form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        form.requestSubmit();
    }
});
stop.addEventListener("click", () => { if (running) running.abort(); });
find("play-clear")?.addEventListener("click", () => {
    epoch += 1;
    if (running) running.abort();
    conversation = null;
    log.replaceChildren();
    say(words.cleared);
    input.focus();
});
// Until now a press of the button would have left the page.
send.disabled = false;
