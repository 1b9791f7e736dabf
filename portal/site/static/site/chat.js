// What the pages that talk to a model have in common: a key of this browser session, events as they
// come, refusals in words. The key lives in the page's memory alone.

// Fills {name} places of a translated sentence.
export function fill(sentence, values) {
    return sentence.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

export async function failureOf(response, words) {
    let message = "";
    try {
        const body = await response.json();
        message = (body.error && body.error.message) || body.detail || body.title || "";
    } catch { /* A body that is not JSON says nothing to a person. */ }
    if (response.status === 429) {
        const seconds = response.headers.get("Retry-After");
        const wait = seconds ? " " + fill(words.retry_after, { seconds }) : "";
        return (message || words.too_many) + wait;
    }
    return message || fill(words.status, { status: response.status });
}

// A key that is made when it is first asked for, and anew before it expires.
export class SessionKey {
    constructor(url, csrf, words, made = () => {}) {
        Object.assign(this, { url, csrf, words, made, key: null });
    }

    forget() { this.key = null; }

    async token(signal) {
        if (this.key && this.key.expires - Date.now() > 30_000) return this.key.token;
        const response = await fetch(this.url, {
            method: "POST",
            credentials: "same-origin",
            headers: { "X-CSRFToken": this.csrf, Accept: "application/json" },
            signal,
        });
        if (response.redirected || response.status === 401) throw new Error(this.words.logged_out);
        if (!response.ok) throw new Error(await failureOf(response, this.words));
        const body = await response.json();
        this.key = { token: body.token, expires: Date.parse(body.expires_at) };
        this.made(new Date(this.key.expires));
        return this.key.token;
    }
}

// POSTs JSON with the key; one that has expired or is revoked is made anew, once.
export async function post(url, body, key, words, signal) {
    for (let attempt = 0; ; attempt += 1) {
        const token = await key.token(signal);
        const response = await fetch(url, {
            method: "POST",
            credentials: "same-origin",
            headers: {
                "Content-Type": "application/json",
                Authorization: `Bearer ${token}`,
                "X-CSRFToken": key.csrf,
            },
            body: JSON.stringify(body),
            signal,
        });
        if (response.ok) return response;
        if (response.status === 401 && attempt === 0) { key.forget(); continue; }
        throw new Error(await failureOf(response, words));
    }
}

// Server-sent events: the name of each, empty where it has none, and its data.
export async function* events(response) {
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let buffer = "";
    for (;;) {
        const { done, value } = await reader.read();
        buffer += done ? decoder.decode() : decoder.decode(value, { stream: true });
        const parts = buffer.split(/\r?\n\r?\n/);
        buffer = parts.pop();
        for (const part of parts) {
            const lines = part.split(/\r?\n/);
            const of = (name) => lines.filter((line) => line.startsWith(`${name}:`))
                .map((line) => line.slice(name.length + 1).trimStart()).join("\n");
            const data = of("data");
            if (data) yield { name: of("event"), data };
        }
        if (done) return;
    }
}
