"use strict";
// One page, no network. Every text from a model reaches the document as a text node.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const $ = (id) => document.getElementById(id);

  function el(tag, props = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "class") node.className = value;
      else if (name === "on") for (const [event, fn] of Object.entries(value)) node.addEventListener(event, fn);
      else if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
    return node;
  }

  // Control characters, direction overrides, zero-width characters and lone surrogates are shown, not obeyed.
  const ODD = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/gu;
  function inert(text) {
    const parts = [];
    let from = 0;
    for (const match of String(text).matchAll(ODD)) {
      if (match.index > from) parts.push(text.slice(from, match.index));
      const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      parts.push(el("span", { class: "odd", title: "a character that does not print" }, "U+" + code));
      from = match.index + match[0].length;
    }
    if (from < String(text).length) parts.push(String(text).slice(from));
    return parts;
  }

  // Hash: #tab=…&episode=…&with=…&task=…
  const readHash = () => new URLSearchParams(location.hash.slice(1));
  function writeHash(values) {
    const hash = new URLSearchParams();
    for (const [key, value] of Object.entries(values)) if (value) hash.set(key, value);
    history.replaceState(null, "", "#" + hash);
  }

  const tabs = [...document.querySelectorAll(".tab")];
  const links = [...document.querySelectorAll(".tabs a")];
  function showTab(slug) {
    const chosen = tabs.some((t) => t.dataset.tab === slug) ? slug : tabs[0]?.dataset.tab;
    for (const tab of tabs) tab.classList.toggle("on", tab.dataset.tab === chosen);
    for (const link of links) link.setAttribute("aria-selected", String(link.dataset.tab === chosen));
    return chosen;
  }

  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Hover readouts.
  const tip = $("tip");
  function showTip(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(innerWidth - box.width - 6, x + 12)) + "px";
    tip.style.top = (y + box.height + 22 > innerHeight ? y - box.height - 10 : y + 16) + "px";
  }
  const hideTip = () => { tip.hidden = true; };
  document.addEventListener("pointermove", (event) => {
    const marked = event.target.closest?.("[data-tip]");
    if (marked) return showTip(marked.dataset.tip, event.clientX, event.clientY);
    const plot = event.target.closest?.(".line-chart");
    document.querySelectorAll(".line-chart.on").forEach((p) => p !== plot && p.classList.remove("on"));
    return plot ? readChart(plot, event) : hideTip();
  });
  document.addEventListener("focusin", (event) => {
    const marked = event.target.closest?.("[data-tip]");
    if (!marked) return hideTip();
    const box = marked.getBoundingClientRect();
    return showTip(marked.dataset.tip, box.right, box.top);
  });
  const short = (v) => (v === 0 ? "0" : Math.abs(v) >= 1e5 || Math.abs(v) < 1e-3 ? v.toExponential(2) : String(+v.toPrecision(5)));
  function readChart(plot, event) {
    plot.points ??= JSON.parse(plot.dataset.points);
    plot.names ??= JSON.parse(plot.dataset.names);
    const box = plot.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * plot.viewBox.baseVal.width;
    const nearest = plot.points.map((line) => line.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a)));
    const cross = plot.querySelector(".cross");
    cross.setAttribute("x1", nearest[0][0]);
    cross.setAttribute("x2", nearest[0][0]);
    plot.classList.add("on");
    const rows = nearest.map((p, i) => `${plot.names[i]}: ${short(p[3])}`);
    showTip(`${plot.dataset.x} ${short(nearest[0][2])}\n${rows.join("\n")}`, event.clientX, event.clientY);
  }

  // Transcripts.
  async function inflate(id) {
    const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }
  const blocks = new Map();
  function block(number) {
    if (!blocks.has(number)) blocks.set(number, inflate("block-" + number));
    return blocks.get(number);
  }

  const explorer = $("explorer");
  let book = null;
  async function openBook() {
    if (!explorer || book) return book;
    const index = await inflate("episode-index");
    const fields = ["run", "task", "row", "epoch", "key", "value", "reason", "malformed", "flags", "part", "note", "block", "at"];
    const all = index.episodes.map((e) => Object.fromEntries(fields.map((name, i) => [name, e[i]])));
    const byKey = new Map(all.map((e) => [e.key, e]));
    const pairs = new Map();
    for (const e of all) {
      const place = JSON.stringify([e.task, e.row, e.epoch]);
      if (!pairs.has(place)) pairs.set(place, []);
      pairs.get(place).push(e);
      e.partners = pairs.get(place);
    }
    book = { runs: index.runs, all, byKey };
    buildExplorer();
    return book;
  }

  const state = { run: "", task: "", part: "", status: "", versus: "", text: "", current: null, mode: "view", seat: null };
  const ITEM = 50;
  let filtered = [];
  let ui = {};
  const partner = (e) => (state.versus === "" ? null : e.partners.find((p) => p.run === +state.versus && p !== e) ?? null);
  const side = (e) => (e.value === null ? "none" : e.value > 0.5);
  const shortId = (row) => row.replace(/^([0-9a-f]{8})[0-9a-f]{8,}/, "$1…");
  const STATUS = {
    "": ["any outcome", () => true],
    right: ["score above 0.5", (e) => e.value !== null && e.value > 0.5],
    wrong: ["score 0.5 or less", (e) => e.value !== null && e.value <= 0.5],
    unscored: ["without a score", (e) => e.value === null],
    malformed: ["malformed answer", (e) => e.malformed],
    flagged: ["flagged by a detector", (e) => e.flags.length > 0],
    changed: ["changed sides (needs “beside”)", (e) => { const p = partner(e); return p && side(p) !== side(e); }],
  };

  function select(name, label, options) {
    const node = el("select", { "aria-label": label, on: { change: () => { state[name] = node.value; refresh(); } } },
      options.map(([value, text]) => el("option", { value }, text)));
    return node;
  }
  function buildExplorer() {
    const tasks = [...new Set(book.all.map((e) => e.task))].sort();
    const parts = [...new Set(book.all.map((e) => e.part).filter(Boolean))].sort();
    const runs = book.runs.map((name, i) => [String(i), name]);
    ui.task = select("task", "Task", [["", "all tasks"], ...tasks.map((t) => [t, t])]);
    ui.run = select("run", "Run", [["", "all runs"], ...runs]);
    ui.part = select("part", "Part", [["", "all parts"], ...parts.map((p) => [p, p])]);
    ui.status = select("status", "Outcome", Object.entries(STATUS).map(([value, [text]]) => [value, text]));
    ui.versus = select("versus", "Beside", [["", "nothing"], ...runs]);
    ui.search = el("input", { type: "search", placeholder: "row id …", "aria-label": "Row id contains", on: { input: () => { state.text = ui.search.value; refresh(); } } });
    ui.count = el("span", { class: "count" });
    ui.spacer = el("div");
    ui.list = el("div", { class: "list", tabindex: "-1", on: { scroll: drawList } }, ui.spacer);
    ui.detail = el("div", { class: "detail" }, el("p", { class: "empty" }, "Choose an episode. Keys j and k go down and up."));
    explorer.replaceChildren(
      el("div", { class: "filters" }, ui.task, ui.run, parts.length ? ui.part : null, ui.status,
        runs.length > 1 ? el("label", {}, "beside", ui.versus) : null, ui.search, ui.count),
      el("div", { class: "panes" }, ui.list, ui.detail));
  }
  function refresh(linked = true) {
    const [, test] = STATUS[state.status];
    const needle = state.text.toLowerCase();
    filtered = book.all.filter((e) =>
      (state.run === "" || e.run === +state.run) && (!state.task || e.task === state.task) &&
      (!state.part || e.part === state.part) && test(e) && (!needle || e.row.toLowerCase().includes(needle)));
    ui.count.textContent = `${filtered.length.toLocaleString("en")} of ${book.all.length.toLocaleString("en")}`;
    ui.spacer.style.height = filtered.length * ITEM + "px";
    drawList();
    if (state.current) openEpisode(state.current, linked);
  }
  function chip(e) {
    if (e.value === null) return el("span", { class: "chip none" }, e.reason ?? "no score");
    const kind = e.value >= 0.999 ? "right" : e.value <= 0.001 ? "wrong" : "part";
    return el("span", { class: "chip " + kind }, e.malformed ? "malformed" : String(+e.value.toFixed(3)));
  }
  function drawList() {
    const first = Math.max(0, Math.floor(ui.list.scrollTop / ITEM) - 5);
    const last = Math.min(filtered.length, first + Math.ceil(ui.list.clientHeight / ITEM) + 12);
    const items = [];
    for (let i = first; i < last; i++) {
      const e = filtered[i];
      const sub = [book.runs.length > 1 ? book.runs[e.run] : null, e.part, e.epoch ? "epoch " + e.epoch : null, e.note, e.flags.length ? "⚑ " + e.flags.join(", ") : null];
      items.push(el("button", { class: "item", type: "button", style: { top: i * ITEM + "px" }, "aria-current": e === state.current ? "true" : null, on: { click: () => openEpisode(e) } },
        el("span", { class: "id", title: e.row }, inert(shortId(e.row))), chip(e), el("span", { class: "sub" }, inert([e.task, ...sub].filter(Boolean).join(" · ")))));
    }
    ui.spacer.replaceChildren(...items);
  }
  let opening = 0;
  async function openEpisode(e, linked = true) {
    const ticket = ++opening;
    state.current = e;
    const other = partner(e);
    if (linked) writeHash({ tab: explorer.closest(".tab").dataset.tab, episode: e.key, with: other?.key });
    drawList();
    const shown = other ? [other, e] : [e];
    const data = await Promise.all(shown.map(async (one) => (await block(one.block))[one.at]));
    if (ticket !== opening) return;
    const sides = shown.map((one, i) => renderSide(one, data[i], shown.length > 1));
    ui.detail.replaceChildren(el("div", { class: "sides" + (other ? " two" : "") }, sides));
  }
  function step(by) {
    const at = filtered.indexOf(state.current);
    const next = filtered[Math.max(0, Math.min(filtered.length - 1, at + by))];
    if (!next) return;
    const top = filtered.indexOf(next) * ITEM;
    if (top < ui.list.scrollTop || top + ITEM > ui.list.scrollTop + ui.list.clientHeight) ui.list.scrollTop = top - ui.list.clientHeight / 2;
    openEpisode(next);
  }
  document.addEventListener("keydown", (event) => {
    if (!book || event.target.closest("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!explorer.closest(".tab").classList.contains("on")) return;
    if (event.key === "j") step(1);
    if (event.key === "k") step(-1);
  });

  const SEAT_COLOURS = 6;
  const colour = (data, seat) => "s" + (Math.max(0, Object.keys(data.views).indexOf(seat)) % SEAT_COLOURS);
  function renderSide(e, data, labelled) {
    const modes = [["view", "Private views"]];
    if (Object.keys(data.views).length > 1) modes.unshift(["says", "Dialogue"]);
    if (Object.keys(data.traces).length) modes.push(["tokens", "Tokens"]);
    const verdicts = data.judge.filter((c) => c.role !== "policy" && c.role !== "partner").length;
    if (data.judge.length) modes.push(["judge", verdicts ? `Judge (${verdicts})` : `Calls (${data.judge.length})`]);
    modes.push(["data", "Row"]);
    const mode = modes.some(([m]) => m === state.mode) ? state.mode : modes[0][0];
    const body = { view: renderViews, says: renderSays, tokens: renderTokens, judge: renderJudge, data: renderData }[mode](data);
    const buttons = modes.map(([m, text]) => el("button", { type: "button", "aria-pressed": String(m === mode), on: { click: () => { state.mode = m; openEpisode(state.current); } } }, text));
    return el("article", { class: "side" },
      el("div", { class: "side-head" }, labelled ? el("b", {}, book.runs[e.run]) : el("b", { title: e.row }, inert(`${e.task} · ${shortId(e.row)}`)), chip(e),
        el("a", { href: "#" + new URLSearchParams({ tab: explorer.closest(".tab").dataset.tab, episode: e.key }), class: "muted" }, "permalink")),
      el("div", { class: "meta" }, inert([labelled ? shortId(e.row) : book.runs[e.run], e.part, data.scorer + " scoring", "stopped: " + data.stop.replace("_", " "), `${data.wall} s`, "seed " + data.seed].filter(Boolean).join(" · "))),
      renderOutcomes(data), data.findings.map(([name, seat, turn, detail]) => el("span", { class: "flag" }, inert(`⚑ ${name} · ${seat}, turn ${turn}${detail ? ": " + detail : ""}`))),
      el("div", { class: "modes", role: "group" }, buttons), body);
  }
  function renderOutcomes(data) {
    return Object.entries(data.outcomes).map(([seat, o]) => {
      const words = o.reason !== undefined ? [`no score: ${o.reason}`, o.detail] : [`score ${+o.value.toFixed(4)}`, o.format_error ? "malformed" : null, ...Object.entries(o.parts).map(([k, v]) => `${k} ${+v.toFixed(4)}`), o.explanation];
      return el("div", { class: "parts" }, el("b", { class: "ink " + colour(data, seat) }, seat), words.filter(Boolean).map((w) => el("span", {}, inert(w))));
    });
  }
  const message = (cls, who, extra, text) => el("div", { class: "message " + cls }, el("div", { class: "who" }, inert(who), extra ? el("span", {}, inert(" " + extra)) : null), el("div", { class: "text", dir: "auto" }, inert(text)));
  function renderViews(data) {
    const seats = Object.keys(data.views);
    const seat = seats.includes(state.seat) ? state.seat : seats[0];
    const chooser = seats.length > 1 ? el("div", { class: "modes" }, seats.map((s) => el("button", { type: "button", "aria-pressed": String(s === seat), on: { click: () => { state.seat = s; openEpisode(state.current); } } }, "what " + s + " sees"))) : null;
    const out = (data.views[seat] ?? []).map(([role, text]) => role === "assistant" ? message(colour(data, seat), seat, "says", text) : message("given", role, "", text));
    if (!out.some((m) => m.classList.contains(colour(data, seat)))) out.push(...data.says.filter(([s]) => s === seat).map(([s, text]) => message(colour(data, s), s, "says", text)));
    if (data.hints[seat]) out.unshift(message("hint", "verbal feedback shown to " + seat, "", data.hints[seat]));
    if (data.feedback[seat]) out.push(message("hint", "verbal feedback earned", data.feedback[seat][1] ? "(its writer saw the reference answer)" : "", data.feedback[seat][0]));
    return el("div", {}, chooser, out.length ? out : el("p", { class: "empty" }, "This seat saw nothing."));
  }
  const renderSays = (data) => el("div", {}, data.says.length ? data.says.map(([seat, text, to]) => message(colour(data, seat), seat, to ? "to " + to.join(", ") + " only" : "", text)) : el("p", { class: "empty" }, "Nobody spoke."));
  function renderTokens(data) {
    const key = el("div", { class: "key-row" }, el("span", {}, "underlined: sampled by the model (what training weighs); grey: given to it"), el("span", {}, "surprise ", el("span", { class: "ramp" }), " probability 1 to 0.1 % and less"));
    return el("div", {}, key, Object.entries(data.traces).map(([seat, trace]) => {
      const sampled = trace.segments.filter((s) => s.sampled);
      const n = sampled.reduce((sum, s) => sum + s.t.length, 0);
      const total = sampled.reduce((sum, s) => sum + s.lp.reduce((a, b) => a + b, 0), 0) / 1000;
      return el("div", {}, el("p", { class: "meta" }, `${seat}: ${n} tokens sampled, mean log-prob ${n ? (total / n).toFixed(3) : "–"}${trace.learnable ? ", learnable" : ""}`),
        el("div", { class: "tokens" }, trace.segments.flatMap(renderSegment)));
    }));
  }
  function renderSegment(s) {
    if (!s.sampled) return [el("span", { class: "given", "data-tip": `given, ${s.n} tokens` }, inert(s.text))];
    return s.t.map((piece, i) => {
      const lp = s.lp[i] / 1000;
      const surprise = Math.min(1, -lp / 6.9) * 0.85;
      return el("span", { class: "tok", style: { "--u": surprise.toFixed(3) }, "data-tip": `${JSON.stringify(piece)} · id ${s.ids[i]}\nlog-prob ${lp.toFixed(3)} · probability ${(100 * Math.exp(lp)).toPrecision(3)} %\nturn ${s.turn} · weights ${s.v}` }, inert(piece));
    });
  }
  // Judges first: their verdict is what one looks for; then the players' own API calls.
  const ROLE_ORDER = ["judge", "auditor", "critic", "partner", "policy"];
  const renderJudge = (data) => el("div", {}, [...data.judge].sort((a, b) => ROLE_ORDER.indexOf(a.role) - ROLE_ORDER.indexOf(b.role)).map(renderCall));
  function renderCall(c) {
    let request = null;
    try { request = JSON.parse(c.request); } catch { /* shown as it is */ }
    const talk = Array.isArray(request?.messages) ? request.messages : null;
    const rest = request && Object.fromEntries(Object.entries(request).filter(([name]) => name !== "messages"));
    return el("section", { class: "call" },
      el("p", { class: "meta" }, el("b", {}, inert(c.role)), inert(` · ${c.model} · ${c.cached ? "from the record" : c.wall + " s"}${c.usd ? " · $" + c.usd : ""}`)),
      el("div", { class: "label" }, c.error ? "Error" : "Reply"), el("pre", { class: "raw reply" + (c.error ? " bad" : "") }, inert(pretty(c.error ?? c.reply ?? ""))),
      el("details", { open: c.role === "judge" }, el("summary", { class: "label" }, "Request"),
        talk ? talk.map((m) => message("given", String(m.role), "", String(m.content ?? ""))) : el("pre", { class: "raw" }, inert(c.request)),
        talk && Object.keys(rest).length ? el("pre", { class: "raw" }, inert(JSON.stringify(rest, null, 1))) : null));
  }
  function pretty(text) {
    try { const value = JSON.parse(text); return typeof value === "object" ? JSON.stringify(value, null, 2) : text; } catch { return text; }
  }
  const renderData = (data) => el("div", {}, el("p", { class: "meta" }, inert(`cluster ${data.row.cluster}`)),
    Object.entries(data.data).map(([name, value]) => el("div", {}, el("div", { class: "muted" }, inert(name)), el("pre", { class: "raw" }, inert(typeof value === "string" ? value : JSON.stringify(value, null, 2))))));

  async function follow() {
    const hash = readHash();
    const chosen = showTab(hash.get("tab") ?? (hash.get("episode") ? explorer?.closest(".tab").dataset.tab : null));
    if (!explorer || explorer.closest(".tab").dataset.tab !== chosen) return;
    await openBook();
    if (hash.get("task")) ui.task.value = state.task = hash.get("task");
    const wanted = book.byKey.get(hash.get("episode"));
    const beside = book.byKey.get(hash.get("with"));
    if (beside) ui.versus.value = state.versus = String(beside.run);
    const missing = hash.get("episode") && !wanted;
    state.current = missing ? null : wanted ?? state.current ?? book.all.find((e) => !state.task || e.task === state.task) ?? null;
    opening++;
    refresh(Boolean(wanted));
    if (wanted && filtered.includes(wanted)) ui.list.scrollTop = Math.max(0, filtered.indexOf(wanted) * ITEM - 120);
    if (missing) ui.detail.replaceChildren(el("p", { class: "empty" }, "That episode is not in this file; the run's ledger has it."));
  }
  addEventListener("hashchange", follow);
  addEventListener("resize", () => book && drawList());
  follow();

  if (document.body.dataset.live === "yes") {
    let seen = null;
    setInterval(async () => {
      try {
        const now = await (await fetch("version", { cache: "no-store" })).text();
        if (seen !== null && seen !== now) $("fresh").hidden = false;
        seen ??= now;
      } catch { /* the server has gone; the page stays readable */ }
    }, 4000);
    $("fresh").addEventListener("click", (event) => { event.preventDefault(); location.reload(); });
  }
})();
