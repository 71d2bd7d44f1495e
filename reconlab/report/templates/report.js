// Sortable tables and the curves. Everything from the data is put in as text, never as HTML.
"use strict";
window.Page = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // Okabe and Ito's colours, told apart by colour-blind readers; darker or lighter where the ground asks for it
  const LIGHT = ["#0072b2", "#d55e00", "#00805c", "#b0568c", "#b07d00", "#2f8fc4", "#5b4bb0", "#6b7280"];
  const DARK = ["#56b4e9", "#e8853b", "#2fc99b", "#dd9cc3", "#f0c33c", "#8ecbf0", "#a79bf0", "#b3bac6"];
  const color = (i) => (dark.matches ? DARK : LIGHT)[i % LIGHT.length];
  const truth = () => (dark.matches ? "#aab4c2" : "#8792a2");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function element(tag, options = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(options)) {
      if (key === "text") made.textContent = value;
      else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((c) => c !== null));
    return made;
  }

  function sortable(table) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const key = (row, i) => {
      const cell = row.cells[i], text = cell.dataset.sort ?? cell.textContent.trim(), number = parseFloat(text);
      return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
    };
    heads.forEach((head, i) => {
      const button = element("button", { type: "button", text: head.textContent });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [key(row, i), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
          return up ? order : -order;
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
  document.querySelectorAll("table.sortable").forEach(sortable);

  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
  const logs = new Set(), plotted = new Map();
  function plot(chart) {
    const lines = chart.lines.map((line) => ({
      x: line.x, y: line.y, name: line.name.replace(/[<>&]/g, (c) => ({ "<": "&lt;", ">": "&gt;", "&": "&amp;" })[c]),
      mode: line.x.length < 3 ? "lines+markers" : "lines", type: "scatter",
      line: { color: color(line.color), dash: DASHES[line.dash % DASHES.length], width: 2 }, hovertemplate: "%{y:.4g} at step %{x}",
    }));
    const axis = { gridcolor: css("--line"), linecolor: css("--line"), zeroline: false, automargin: true };
    const layout = {
      margin: { l: 8, r: 8, t: 8, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), size: 12 }, hovermode: "closest", showlegend: lines.length > 1,
      legend: { orientation: "h", y: -0.22, font: { size: 11 } }, hoverlabel: { namelength: -1 },
      xaxis: { ...axis, title: { text: "step", standoff: 4 } }, yaxis: { ...axis, type: logs.has(chart.id) ? "log" : "linear" },
    };
    const box = document.getElementById(chart.id);
    Plotly.react(box, lines, layout, { displayModeBar: false, responsive: true });
    plotted.set(chart.id, chart);
  }
  if (window.Plotly && data.charts.length) {
    const seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting || plotted.has(target.id)) continue;
        plot(data.charts.find((chart) => chart.id === target.id));
        seen.unobserve(target);
      }
    }, { rootMargin: "200px" });
    document.querySelectorAll(".plot").forEach((box) => seen.observe(box));
    document.querySelectorAll("input[data-chart]").forEach((box) => box.addEventListener("change", () => {
      box.checked ? logs.add(box.dataset.chart) : logs.delete(box.dataset.chart);
      plot(data.charts.find((chart) => chart.id === box.dataset.chart));
    }));
  }
  dark.addEventListener("change", () => { plotted.forEach(plot); window.Viewer.redraw(); });
  return { data, color, truth, element };
})();
