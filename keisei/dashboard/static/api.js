// Asks the server, and follows what it tells. The token is kept for this origin, port included.

const KEY = "keisei-token";
const state = { listener: () => {}, said: "" };

export function takeToken() {
  const url = new URL(location.href);
  const token = url.searchParams.get("token");
  if (!token) return;
  localStorage.setItem(KEY, token);
  url.searchParams.delete("token");
  history.replaceState(null, "", url);
}

export function onStatus(listener) { state.listener = listener; }

function say(kind, text) {
  if (state.said === kind + text) return;
  state.said = kind + text;
  state.listener(kind, text);
}

function headers() {
  return { Authorization: `Bearer ${localStorage.getItem(KEY) || ""}` };
}

export class Refused extends Error {}

async function answered(response) {
  if (response.status === 403) {
    say("bad", "Refused");
    throw new Refused((await response.text()).replace(/^keisei ui: /, ""));
  }
  const data = await response.json().catch((error) => { if (response.ok) throw error; return {}; });
  if (!response.ok) throw new Error(data.problem || `The server answers with ${response.status}: its terminal may say why.`);
  return data;
}

export function address(path, query = {}) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") params.append(name, one);
    }
  }
  const text = params.toString();
  return text ? `${path}?${text}` : path;
}

export async function get(path, query, signal) {
  return answered(await fetch(address(path, query), { headers: headers(), signal }));
}

export async function content(path) { // as an address that an image can have: it sends no token
  const response = await fetch(path, { headers: headers() });
  if (!response.ok) await answered(response);
  return response.blob();
}

// What is drawn of metrics. Their names are no part of the address: it could not hold the longest, nor half a character.
export async function series({ metric, ...query }) {
  return post(address("/api/series", query), metric);
}

export async function post(path, data) {
  return answered(await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(data) }));
}

// Calls `told` with each thing that the server tells, and `again` when it is back after an absence.
export function follow(query, told, again) {
  let controller = null, ended = false, wait = 500, lost = false, timer = null;

  async function listen() {
    controller = new AbortController();
    const mine = controller;
    try {
      const response = await fetch(address("/api/follow", query), { headers: headers(), signal: mine.signal });
      if (!response.ok) { await answered(response); return; }
      if (lost) { say("good", "Connected again"); again(); } else say("good", "Live");
      lost = false; wait = 500;
      const reader = response.body.getReader(), decoder = new TextDecoder();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += decoder.decode(value, { stream: true });
        let end;
        while ((end = text.indexOf("\n\n")) >= 0) {
          const event = text.slice(0, end);
          text = text.slice(end + 2);
          if (event.startsWith("data: ")) told(JSON.parse(event.slice(6)));
        }
      }
    } catch (error) {
      if (ended || mine.signal.aborted) return;
      if (error instanceof Refused) {
        say("bad", "Refused: open the address that keisei ui has printed");
        return;
      }
    }
    if (ended || mine !== controller) return;
    lost = true;
    say("bad", "Connection lost: trying again");
    timer = setTimeout(listen, wait);
    wait = Math.min(wait * 1.5, 3000);
  }

  function seen() { // browsers have few connections for a server: a hidden page needs none
    if (document.hidden) { clearTimeout(timer); controller?.abort(); controller = null; say("idle", "Paused"); }
    else if (!controller) { listen(); again(); }
  }

  document.addEventListener("visibilitychange", seen);
  listen();
  return () => {
    ended = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
    controller?.abort();
  };
}
