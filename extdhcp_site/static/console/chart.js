// Draws what a data block says, in the page's own colours, and anew when it has changed. The table beside it says the same.
// {x: [seconds], lines: [{label, values, scale}]}
const charts = new Map();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw(place) {
  const source = document.getElementById(place.dataset.chart);
  if (!source || charts.get(place)?.text === source.textContent) return;
  const { x, lines } = JSON.parse(source.textContent);
  charts.get(place)?.chart.destroy();
  const strokes = ["--accent-strong", "--ok", "--warn"].map(colour);
  const axis = { stroke: colour("--body-quiet-color"), grid: { stroke: colour("--hairline-color"), width: 1 }, ticks: { stroke: colour("--hairline-color") } };
  const chart = new uPlot({
    width: place.clientWidth,
    height: 180,
    cursor: { drag: { x: false, y: false } },
    scales: { x: { time: true }, y: { range: (_, __, most) => [0, Math.max(most * 1.1, 1)] }, s: { range: (_, __, most) => [0, Math.max(most * 1.1, 1)] } },
    axes: [{ ...axis, values: (_, ticks) => ticks.map(clock) }, { ...axis, scale: "y" }, { ...axis, scale: "s", side: 1, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => `${tick} s`) }],
    series: [{ label: "At", value: (_, seconds) => (seconds ? clock(seconds) : "–") }, ...lines.map(({ label, scale }, number) => ({ label, scale, stroke: strokes[number], width: 1.5, dash: scale === "s" ? [4, 3] : undefined, points: { show: x.length < 30 } }))],
  }, [x, ...lines.map(({ values }) => values)], place);
  charts.set(place, { chart, text: source.textContent });
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

function drawAll() {
  document.querySelectorAll("[data-chart]").forEach(draw);
}

drawAll();
document.addEventListener("htmx:after:swap", drawAll);
window.addEventListener("resize", () => charts.forEach(({ chart }, place) => chart.setSize({ width: place.clientWidth, height: 180 })));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  charts.forEach((drawn) => { drawn.text = ""; });
  drawAll();
});
