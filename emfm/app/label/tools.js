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
  say(`segmented in ${answer.seconds} s${answer.note ? "; " + answer.note : ""}`);
}

async function showModel() {
  if (!page.name) return say("open a micrograph first", true);
  const { name, box } = page, model = $("models").value;
  busy($("show"), true);
  say(`${model} looks at it…`);
  await queue;
  const answer = await ask("show", { name, box, model });
  busy($("show"), false);
  if (answer.error || name !== page.name || String(box) !== String(page.box)) return;
  await Promise.all([draw("result", answer.classes), draw("doubt", answer.doubt)]);
  say(`what ${model} finds, in ${answer.seconds} s`);
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
$("show").onclick = showModel;
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
  const answer = await ask("train", { steps: Number($("steps").value), start: $("start").value });
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
