// The tab "Label". The session lives on the page's machine: every stroke goes there and comes back
// as a picture, so what is shown is what is on the disk.
const $ = (name) => element.querySelector(`.lt-${name}`);
const canvases = ["image", "result", "doubt", "labels"];
const page = { state: null, name: null, box: null, shape: null, label: 0, erase: false, zoom: 1, stroke: null };
let queue = Promise.resolve(); // strokes and undos arrive in the order in which they were made
let waiting = 0;

function say(text, wrong = false) {
  $("message").textContent = text || "";
  $("message").classList.toggle("lt-wrong", wrong);
}

async function ask(verb, given = {}) {
  let answer;
  try {
    answer = await server.ask({ verb, ...given });
  } catch (error) {
    answer = { error: "the page's machine does not answer: is emfm app still running?" };
  }
  if (!answer || typeof answer !== "object") answer = { error: "the page's machine does not answer" };
  if (answer.error) say(answer.error, true);
  return answer;
}

function busy(button, on) {
  button.disabled = on;
  button.style.cursor = on ? "progress" : "";
}

// ---- classes, micrographs, models, work

function element_of(tag, given = {}, ...children) {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...children);
  return made;
}

function showClasses() {
  const list = $("classes");
  if (list.contains(document.activeElement) && document.activeElement.tagName === "INPUT") return;
  const drawn = JSON.stringify([page.state.classes, page.label, page.erase]);
  if (list.dataset.drawn === drawn) return;
  list.dataset.drawn = drawn;
  list.replaceChildren(...page.state.classes.map((known, index) => {
    const chip = element_of("button", { textContent: index + 1, title: `paint ${known.name}` });
    chip.style.background = `rgb(${known.colour})`;
    chip.onclick = () => choose(index);
    const name = element_of("input", { value: known.name, ariaLabel: `Name of class ${index + 1}` });
    name.onchange = () => nameClasses(page.state.classes.map((c, i) => (i === index ? name.value : c.name)));
    const row = element_of("div", { className: "lt-class" }, chip, name, element_of("small", { textContent: known.pixels }));
    row.classList.toggle("lt-chosen", index === page.label && !page.erase);
    return row;
  }));
}

function choose(index) {
  if (!page.state || index >= page.state.classes.length) return;
  page.label = index;
  page.erase = false;
  tools();
}

function tools() {
  $("paint").classList.toggle("lt-on", !page.erase);
  $("erase").classList.toggle("lt-on", page.erase);
  showClasses();
}

async function nameClasses(names) {
  document.activeElement.blur();
  const answer = await ask("classes", { names });
  if (answer.error) {
    $("classes").dataset.drawn = "";
    return refresh();
  }
  say("");
  show(answer);
  if (page.name) view(page.box ? centre() : {});
}

function options(select, entries, chosen) {
  const drawn = JSON.stringify(entries);
  if (select.dataset.drawn !== drawn) {
    select.dataset.drawn = drawn;
    select.replaceChildren(...entries.map(([value, text]) => element_of("option", { value, textContent: text })));
  }
  if (chosen !== undefined && chosen !== null) select.value = chosen;
}

function show(state) {
  page.state = state;
  if (page.label >= state.classes.length) page.label = 0;
  showClasses();
  options($("images"), state.images.map((i) => [i.name, i.painted ? `● ${i.name}` : i.name]), page.name);
  const kept = $("models").value;
  options($("models"), [["strokes", "strokes (head alone)"], ...state.models.filter((m) => m !== "strokes").map((m) => [m, m])], kept || "strokes");
  element.querySelectorAll(".lt-local").forEach((part) => (part.style.display = state.local ? "" : "none"));
  $("session").textContent = `Session: ${state.folder}. A labelled folder; the command line takes it with --data.`;
  const bases = [["", "pretrained"], ...state.models.filter((m) => m !== "strokes").map((m) => [m, m])];
  options($("start"), bases, bases.some(([m]) => m === $("start").value) ? $("start").value : "");
  showJob(state.job);
  showCurve(state.curve);
}

function showJob(job) {
  const running = Boolean(job && job.running);
  const made = job && job.output ? job.output.split("/").pop() : "";
  if (page.training && !running && page.state.models.includes(made)) $("models").value = made;
  page.training = running && job.kind === "training";
  $("train").disabled = $("predict").disabled = running;
  $("stop").disabled = !running;
  if (!job) return;
  const share = job.total ? Math.round((100 * job.done) / job.total) : 0;
  const bar = $("progress");
  bar.hidden = !running;
  if (running && !job.total) bar.removeAttribute("value"); // it begins
  else bar.value = share;
  const counted = job.total ? `${job.done} of ${job.total}, ` : "";
  const seconds = `${Math.round(job.seconds)} s`;
  let text = `${job.kind}: ${counted}${seconds}`;
  if (running && job.stopped) text += "; it stops after this step, at once if you press Stop again";
  else if (!running && job.error) text = `${job.kind}: ${job.error}`;
  else if (!running) text = `${job.kind} ${job.stopped ? "stopped" : "done"} (${seconds}): ${job.output || "nothing to keep yet"}`;
  $("job").textContent = text;
  $("job").style.color = job.error && !running ? "#c0392b" : "";
}

function showCurve(found) {
  const svg = $("curve"), curve = found ? found.points.filter((e) => e.dice !== null) : [];
  svg.toggleAttribute("hidden", !curve.length);
  $("figure").textContent = curve.length ? `${found.model}: best Dice ${Math.max(...curve.map((e) => e.dice)).toFixed(3)}${found.note ? " " + found.note : ""}` : "";
  if (!curve.length) return;
  const last = Math.max(1, curve[curve.length - 1].step);
  const x = (step) => 28 + (184 * step) / last, y = (dice) => 74 - 66 * dice;
  const points = curve.map((e) => `${x(e.step).toFixed(1)},${y(e.dice).toFixed(1)}`);
  const lines = [0, 0.5, 1].map((v) => `<line x1="28" x2="212" y1="${y(v)}" y2="${y(v)}" stroke="currentColor" opacity=".2"/><text x="24" y="${y(v) + 3}" text-anchor="end">${v}</text>`);
  const dots = points.map((p) => `<circle cx="${p.split(",")[0]}" cy="${p.split(",")[1]}" r="2.5" fill="#e69f00"/>`);
  svg.innerHTML = `<g font-size="9" fill="currentColor">${lines.join("")}<text x="120" y="87" text-anchor="middle">Dice by step, to ${last}</text></g><polyline points="${points.join(" ")}" fill="none" stroke="#e69f00" stroke-width="2"/>${dots.join("")}`;
}

async function refresh() {
  const state = await ask("state");
  if (state.error) return null;
  show(state);
  return state;
}
