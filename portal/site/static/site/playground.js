// The playground: a conversation over /v1/chat/completions, streamed. The key lives in this
// page's memory alone and works only together with this browser session.
import { SessionKey, events, fill, post } from "./chat.js";

(() => {
    const root = document.getElementById("playground");
    if (!root) return;

    const words = JSON.parse(document.getElementById("play-words").textContent);
    const find = (id) => document.getElementById(id);
    const log = find("play-log");
    const input = find("play-input");
    const status = find("play-status");
    const send = find("play-send");
    const stop = find("play-stop");
    const csrf = root.querySelector("[name=csrfmiddlewaretoken]").value;

    let conversation = [];
    let running = null;
    let epoch = 0;

    function say(text) { status.textContent = text; }

    const key = new SessionKey(root.dataset.keyUrl, csrf, words, (until) => {
        find("play-key").textContent = fill(words.key_until, {
            time: until.toLocaleTimeString(document.documentElement.lang, {
                hour: "2-digit", minute: "2-digit",
            }),
        });
    });

    async function request(messages, signal) {
        const limit = Number.parseInt(find("play-max-tokens").value, 10);
        const temperature = Number.parseFloat(find("play-temperature").value);
        const body = {
            model: find("play-model").value,
            messages,
            stream: true,
            stream_options: { include_usage: true },
        };
        if (Number.isFinite(limit)) body.max_tokens = limit;
        if (Number.isFinite(temperature)) body.temperature = temperature;
        say(words.waiting);
        return post(root.dataset.completionsUrl, body, key, words, signal);
    }

    function bubble(role, text) {
        find("play-welcome")?.remove();
        const element = document.createElement("div");
        element.className = `fh-message fh-message-${role}`;
        element.textContent = text;
        log.append(element);
        log.scrollTop = log.scrollHeight;
        return element;
    }

    function note(text) {
        const element = document.createElement("p");
        element.className = "fh-message-facts";
        element.textContent = text;
        log.append(element);
        log.scrollTop = log.scrollHeight;
    }

    function busy(on) {
        send.disabled = on;
        stop.hidden = !on;
        log.setAttribute("aria-busy", String(on));
    }

    function factsOf(turn) {
        const facts = [];
        if (turn.first) facts.push(fill(words.first_token, { ms: Math.round(turn.first - turn.begun) }));
        if (turn.usage) {
            facts.push(fill(words.usage, {
                prompt: turn.usage.prompt_tokens, completion: turn.usage.completion_tokens,
            }));
        }
        if (turn.reason === "length") facts.push(words.cut);
        if (turn.stopped) facts.push(words.stopped);
        return facts.join(" · ");
    }

    function take(turn, answer, data) {
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message || words.broken);
        if (chunk.usage) turn.usage = chunk.usage;
        const choice = chunk.choices && chunk.choices[0];
        if (!choice) return;
        if (choice.finish_reason) turn.reason = choice.finish_reason;
        const piece = choice.delta && choice.delta.content;
        if (!piece) return;
        if (!turn.first) { turn.first = performance.now(); say(words.answering); }
        turn.text += piece;
        // Follow the text, unless the reader has scrolled up.
        const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
        answer.textContent = turn.text;
        if (follows) log.scrollTop = log.scrollHeight;
    }

    async function ask(text) {
        const controller = new AbortController();
        const mine = epoch;
        running = controller;
        busy(true);
        bubble("user", text);
        const answer = bubble("assistant", "");
        answer.dataset.streaming = "";
        const messages = [...conversation, { role: "user", content: text }];
        const turn = { begun: performance.now(), first: 0, text: "", usage: null, reason: "", stopped: false };
        let failure = "";
        let ended = false;
        try {
            const response = await request(messages, controller.signal);
            for await (const { data } of events(response)) {
                if (data === "[DONE]") { ended = true; break; }
                take(turn, answer, data);
            }
            if (!ended) failure = words.broken;
        } catch (fault) {
            if (controller.signal.aborted) turn.stopped = true;
            else failure = fault instanceof TypeError ? words.unreachable : fault.message;
        }
        running = null;
        busy(false);
        if (mine !== epoch) return;
        delete answer.dataset.streaming;
        if (turn.text) conversation = [...messages, { role: "assistant", content: turn.text }];
        else answer.remove();
        const facts = factsOf(turn);
        if (facts) note(facts);
        if (failure) {
            const element = bubble("failed", failure);
            element.setAttribute("role", "alert");
            if (!turn.text) input.value = text;
        }
        say(failure ? words.not_done : words.done);
        input.focus();
    }

    find("play-form").addEventListener("submit", (event) => {
        event.preventDefault();
        const text = input.value.trim();
        if (!text || running) return;
        input.value = "";
        ask(text);
    });
    input.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            find("play-form").requestSubmit();
        }
    });
    stop.addEventListener("click", () => { if (running) running.abort(); });
    find("play-clear").addEventListener("click", () => {
        epoch += 1;
        if (running) running.abort();
        conversation = [];
        log.replaceChildren();
        say(words.cleared);
        input.focus();
    });
})();
