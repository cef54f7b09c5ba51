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
