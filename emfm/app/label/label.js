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
  showJob(state.job);
}

function showJob(job) {
  const running = Boolean(job && job.running);
  $("train").disabled = $("predict").disabled = running;
  $("stop").disabled = !running;
  if (!job) return;
  const share = job.total ? Math.round((100 * job.done) / job.total) : 0;
  const bar = $("progress");
  bar.hidden = !running;
  if (running && !job.total) bar.removeAttribute("value"); // it begins
  else bar.value = share;
  const counted = job.total ? `${job.done} of ${job.total}, ` : "";
  let text = `${job.kind}: ${counted}${Math.round(job.seconds)} s`;
  if (!running) text = job.error ? `${job.kind}: ${job.error}` : `${job.kind} ${job.stopped ? "stopped" : "done"}: ${job.output} (${Math.round(job.seconds)} s)`;
  const measured = job.curve.map((e) => e.left_out).find((e) => e && e.mean !== null);
  if (measured) {
    const spread = `${measured.mean.toFixed(2)} ± ${measured.spread.toFixed(2)}`;
    text += `; Dice ${spread} on what short trainings had not seen (${measured.n} ${measured.of} of your labels, each left out once)`;
  }
  $("job").textContent = text;
  $("job").style.color = job.error && !running ? "#c0392b" : "";
  showCurve(job.curve.filter((e) => e.dice !== null));
}

function showCurve(curve) {
  const svg = $("curve");
  svg.toggleAttribute("hidden", !curve.length);
  if (!curve.length) return;
  const last = Math.max(1, curve[curve.length - 1].step);
  const x = (step) => 28 + (184 * step) / last, y = (dice) => 74 - 66 * dice;
  const points = curve.map((e) => `${x(e.step).toFixed(1)},${y(e.dice).toFixed(1)}`);
  const lines = [0, 0.5, 1].map((v) => `<line x1="28" x2="212" y1="${y(v)}" y2="${y(v)}" stroke="currentColor" opacity=".2"/><text x="24" y="${y(v) + 3}" text-anchor="end">${v}</text>`);
  const dots = points.map((p) => `<circle cx="${p.split(",")[0]}" cy="${p.split(",")[1]}" r="2.5" fill="#e69f00"/>`);
  const best = Math.max(...curve.map((e) => e.dice)).toFixed(3);
  svg.innerHTML = `<g font-size="9" fill="currentColor">${lines.join("")}<text x="120" y="87" text-anchor="middle">step ${last}, best Dice ${best}</text></g><polyline points="${points.join(" ")}" fill="none" stroke="#e69f00" stroke-width="2"/>${dots.join("")}`;
}

async function refresh() {
  const state = await ask("state");
  if (state.error) return null;
  show(state);
  return state;
}

// ---- the part that is shown

function draw(name, source) {
  const canvas = $(name), context = canvas.getContext("2d");
  return new Promise((done) => {
    if (!source) {
      context.clearRect(0, 0, canvas.width, canvas.height);
      return done();
    }
    const picture = new Image();
    picture.onload = () => {
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.drawImage(picture, 0, 0);
      done();
    };
    picture.onerror = done;
    picture.src = source;
  });
}

const centre = () => ({ row: (page.box[0] + page.box[2]) / 2, column: (page.box[1] + page.box[3]) / 2 });

async function view(place = {}) {
  const answer = await ask("view", { name: page.name, ...place });
  if (answer.error) return;
  const fresh = !page.box || String(page.shape) !== String(answer.shape);
  page.box = answer.box;
  page.shape = answer.shape;
  $("empty").hidden = true;
  $("layers").hidden = $("overview").hidden = false;
  for (const name of canvases) {
    $(name).width = answer.box[3] - answer.box[1];
    $(name).height = answer.box[2] - answer.box[0];
  }
  await Promise.all([draw("image", answer.image), draw("labels", answer.labels), draw("result", answer.classes), draw("doubt", answer.doubt)]);
  if (fresh) fit();
  const [height, width] = answer.shape;
  const pixel = answer.pixel_size ? `, ${Number(answer.pixel_size.toPrecision(4))} nm per pixel` : "";
  const whole = answer.box[3] - answer.box[1] === width && answer.box[2] - answer.box[0] === height;
  const part = whole ? "" : `; shown: rows ${answer.box[0]} to ${answer.box[2]}, columns ${answer.box[1]} to ${answer.box[3]} (click the small picture to move)`;
  $("where").textContent = `${width} x ${height} pixels${pixel}${part}`;
  $("overview").querySelector("img").src = answer.overview;
  const frame = $("overview").querySelector("i");
  frame.style.display = whole ? "none" : "";
  Object.assign(frame.style, {
    left: `${(100 * answer.box[1]) / width}%`, top: `${(100 * answer.box[0]) / height}%`,
    width: `${(100 * (answer.box[3] - answer.box[1])) / width}%`, height: `${(100 * (answer.box[2] - answer.box[0])) / height}%`,
  });
  $("overview").hidden = whole;
}

async function openImage(name) {
  page.name = name;
  page.box = null;
  $("place").hidden = true;
  $("images").value = name;
  say("");
  await view();
}

function zoom(scale) {
  page.zoom = Math.min(16, Math.max(0.1, scale));
  const layers = $("layers");
  layers.style.width = `${$("image").width * page.zoom}px`;
  layers.style.height = `${$("image").height * page.zoom}px`;
  $("zoom-told").textContent = `${Math.round(100 * page.zoom)} %`;
}

function fit() {
  const stage = $("stage");
  zoom(Math.min(stage.clientWidth / $("image").width, stage.clientHeight / $("image").height));
}

// ---- strokes

function at(event) {
  const frame = $("labels").getBoundingClientRect();
  return [page.box[1] + (event.clientX - frame.left) / page.zoom, page.box[0] + (event.clientY - frame.top) / page.zoom];
}

function preview(points) {
  const context = $("labels").getContext("2d");
  context.save();
  context.translate(-page.box[1], -page.box[0]);
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = 2 * page.stroke.radius;
  if (page.erase) context.globalCompositeOperation = "destination-out";
  context.strokeStyle = `rgb(${page.state.classes[page.label].colour})`;
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points.length > 1 ? points : [points[0], points[0]]) context.lineTo(...point);
  context.stroke();
  context.restore();
}

function later(verb, given) {
  const { name, box } = page;
  waiting += 1;
  queue = queue.then(async () => {
    const answer = await ask(verb, { name, box, ...given });
    waiting -= 1;
    if (answer.error) return name === page.name && view(centre());
    if (answer.note) say(answer.note);
    answer.counts.forEach((count, index) => page.state.classes[index] && (page.state.classes[index].pixels = count));
    showClasses();
    if (!waiting && name === page.name && String(box) === String(page.box)) await draw("labels", answer.labels);
  });
  return queue;
}

const layers = $("layers");
layers.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !page.box) return;
  event.preventDefault();
  layers.setPointerCapture(event.pointerId);
  $("place").hidden = true;
  page.stroke = { radius: Number($("size").value) / 2, points: [at(event)] };
  preview(page.stroke.points);
});
layers.addEventListener("pointermove", (event) => {
  const size = Number($("size").value) * page.zoom, frame = layers.getBoundingClientRect();
  Object.assign($("cursor").style, { display: "block", width: `${size}px`, height: `${size}px`, left: `${event.clientX - frame.left}px`, top: `${event.clientY - frame.top}px` });
  if (!page.stroke) return;
  const moves = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  const points = (moves.length ? moves : [event]).map(at);
  preview([page.stroke.points[page.stroke.points.length - 1], ...points]);
  page.stroke.points.push(...points);
});
layers.addEventListener("pointerleave", () => ($("cursor").style.display = "none"));
function finish() {
  const stroke = page.stroke;
  if (!stroke) return;
  page.stroke = null;
  later("stroke", { label: page.erase ? null : page.state.classes[page.label].name, radius: stroke.radius, points: stroke.points });
}
layers.addEventListener("pointerup", finish);
layers.addEventListener("pointercancel", finish);

// ---- buttons and keys

async function segment() {
  if (!page.name) return say("open a micrograph first", true);
  busy($("segment"), true);
  say("segmenting…");
  await queue;
  const { name, box } = page;
  const answer = await ask("segment", { name, box });
  busy($("segment"), false);
  if (answer.error || name !== page.name || String(box) !== String(page.box)) return;
  await Promise.all([draw("result", answer.classes), draw("doubt", answer.doubt)]);
  say(`${answer.seconds} s${answer.note ? "; " + answer.note : ""}`);
}

async function suggest() {
  if (!page.name) return say("open a micrograph first", true);
  busy($("suggest"), true);
  await queue;
  const answer = await ask("suggest", { name: page.name, box: page.box });
  busy($("suggest"), false);
  if (answer.error) return;
  if (answer.row < page.box[0] || answer.row >= page.box[2] || answer.column < page.box[1] || answer.column >= page.box[3]) await view(answer);
  const place = $("place"), [left, top] = [answer.column - page.box[1], answer.row - page.box[0]];
  Object.assign(place.style, { left: `${left * page.zoom}px`, top: `${top * page.zoom}px` });
  place.hidden = false;
  place.scrollIntoView({ block: "nearest", inline: "nearest" });
  say(`worth labelling next: column ${answer.column}, row ${answer.row}`);
}

async function openFiles(paths, folder) {
  say("opening…");
  const answer = await ask("open", { paths, folder });
  if (answer.state) show(answer.state);
  if (answer.added && answer.added.length) {
    await openImage(answer.added[0]);
    if (answer.error) say(answer.error, true);
  }
}

$("files").onchange = async (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  say("uploading…");
  try {
    const paths = [];
    for (const file of files) paths.push((await upload(file)).path);
    await openFiles(paths, "");
  } catch (error) {
    say(`the file was not taken (${error.message || error}): is it larger than the page allows?`, true);
  }
};
$("open-folder").onclick = () => openFiles([], $("folder").value);
$("images").onchange = (event) => openImage(event.target.value);
$("add-class").onclick = () => {
  const names = page.state.classes.map((known) => known.name);
  let number = names.length + 1;
  while (names.includes(`class ${number}`)) number += 1;
  nameClasses([...names, `class ${number}`]);
};
$("paint").onclick = () => { page.erase = false; tools(); };
$("erase").onclick = () => { page.erase = true; tools(); };
$("undo").onclick = () => page.name && later("undo", {});
$("segment").onclick = segment;
$("suggest").onclick = suggest;
$("in").onclick = () => zoom(page.zoom * 1.5);
$("out").onclick = () => zoom(page.zoom / 1.5);
$("fit").onclick = fit;
const size = (pixels) => {
  $("size").value = pixels;
  $("size-told").textContent = `${$("size").value} px`;
};
$("size").oninput = () => size($("size").value);
const fade = () => {
  $("result").style.opacity = Number($("fade").value) / 100;
  $("fade-told").textContent = `${$("fade").value} %`;
};
$("fade").oninput = fade;
$("show-labels").onchange = (event) => ($("labels").style.visibility = event.target.checked ? "" : "hidden");
$("show-doubt").onchange = (event) => ($("doubt").style.visibility = event.target.checked ? "" : "hidden");
$("overview").onclick = (event) => {
  const frame = $("overview").getBoundingClientRect(), [height, width] = page.shape;
  view({ row: ((event.clientY - frame.top) / frame.height) * height, column: ((event.clientX - frame.left) / frame.width) * width });
};
$("train").onclick = async () => {
  await queue;
  const answer = await ask("train", { steps: Number($("steps").value) });
  if (!answer.error) { say(""); show(answer); }
};
$("stop").onclick = async () => {
  busy($("stop"), true);
  const answer = await ask("stop");
  if (!answer.error) show(answer);
};
$("predict").onclick = async () => {
  busy($("predict"), true);
  const answer = await ask("predict", { model: $("models").value, folder: $("predict-folder").value });
  busy($("predict"), false);
  if (!answer.error) { say(""); show(answer); }
};
$("push").onclick = async () => {
  busy($("push"), true);
  say("pushing…");
  const answer = await ask("push", { model: $("models").value, repo_id: $("repo").value, private: $("private").checked });
  busy($("push"), false);
  if (!answer.error) say(`pushed: ${answer.address}`);
};
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "range" && event.target.type !== "checkbox";
  if (typing || event.ctrlKey && event.key !== "z" || event.metaKey || event.altKey || !element.offsetParent) return;
  if (/^[1-9]$/.test(event.key)) choose(Number(event.key) - 1);
  else if (event.key === "[") size(Number($("size").value) - 2);
  else if (event.key === "]") size(Number($("size").value) + 2);
  else if (event.key === "z" && page.name) { event.preventDefault(); later("undo", {}); }
});

fade();
$("doubt").style.visibility = "hidden";
refresh().then((state) => state && state.images.length && openImage((state.images.find((i) => i.painted) || state.images[0]).name));
// what another page painted, and how far the work is; nothing while nobody looks
setInterval(async () => {
  if (document.hidden || !element.offsetParent || page.stroke || waiting) return;
  const before = page.state && JSON.stringify(page.state.images);
  const state = await ask("state");
  if (state.error || page.stroke || waiting) return;
  show(state);
  if (!page.name && state.images.length) openImage(state.images[0].name);
  else if (page.name && before && before !== JSON.stringify(state.images)) {
    const answer = await ask("labels", { name: page.name, box: page.box });
    if (!answer.error && !page.stroke && !waiting) draw("labels", answer.labels);
  }
}, 1500);
