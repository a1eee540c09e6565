// Draws every figure of a page (components/chart.html): reads its json_script, gives it the colours of the theme, and
// draws it anew when the theme changes. The table beside each chart holds the same figures and links for the keyboard.
(() => {
  "use strict";

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const named = {
    accent: "--accent", other: "--other", idle: "--idle", positive: "--positive-fill", caution: "--caution-fill",
    critical: "--critical-fill", info: "--info-fill", neutral: "--neutral-fill",
  };
  const TEAMS = 12;
  const colour = (key) => (typeof key === "number" ? css(`--team-${((key % TEAMS) + TEAMS) % TEAMS}`) : css(named[key] ?? "--other"));

  const dressTrace = (trace) => {
    const dressed = { ...trace };
    const paint = colour(trace.meta?.colour);
    if (trace.type === "bar") {
      // A hairline in the page's colour parts neighbours, whatever their hue.
      dressed.marker = { ...trace.marker, color: paint, line: { color: css("--surface"), width: 0.6 } };
    } else {
      dressed.line = { width: 2, ...trace.line, color: paint };
      dressed.marker = { ...trace.marker, color: paint };
    }
    return dressed;
  };

  const axis = (given) => ({
    automargin: true,
    fixedrange: true,
    gridcolor: css("--line"),
    linecolor: css("--line"),
    zerolinecolor: css("--line"),
    tickfont: { color: css("--ink-faint") },
    ...given,
    title: { standoff: 10, ...given?.title, font: { color: css("--ink-faint"), size: 12 } },
  });

  const dressLayout = (layout, area) => {
    const narrow = area.clientWidth < 520;
    return {
      ...layout,
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 8, t: 8, b: 8, pad: 0 },
      bargap: 0.22,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--ink-soft") },
      showlegend: true,
      legend: { orientation: "h", x: 0, y: -0.18, yanchor: "top", font: { color: css("--ink-soft") }, traceorder: "normal" },
      hoverlabel: { bgcolor: css("--surface"), bordercolor: css("--line-strong"), font: { color: css("--ink") } },
      xaxis: { ...axis(layout.xaxis), showgrid: layout.yaxis?.autorange === "reversed", nticks: narrow ? 5 : undefined },
      yaxis: axis(layout.yaxis),
    };
  };

  const draw = (figure) => {
    const area = figure.querySelector("[data-chart-area]");
    const source = document.getElementById(figure.dataset.chart);
    if (!area || !source) return Promise.resolve();
    const { data, layout } = JSON.parse(source.textContent);
    const options = { displayModeBar: false, responsive: true, doubleClick: false };
    return window.Plotly.react(area, data.map(dressTrace), dressLayout(layout, area), options).then(() => {
      if (area.dataset.wired) return;
      area.dataset.wired = "1";
      area.on("plotly_click", (event) => {
        const target = event.points?.[0]?.customdata;
        // Only addresses of the portal itself: a figure is data.
        if (typeof target === "string" && target.startsWith("/") && !target.startsWith("//")) window.location.assign(target);
      });
    });
  };

  const figures = (scope) => [...scope.querySelectorAll("[data-chart]")].filter((one) => one.querySelector("[data-chart-area]"));

  const drawAll = (scope) =>
    Promise.all(figures(scope).map(draw)).then(() => {
      document.body.dataset.ready = "1";
    });

  document.addEventListener("DOMContentLoaded", () => drawAll(document));
  document.addEventListener("commons:theme", () => drawAll(document));
  document.addEventListener("htmx:load", (event) => {
    if (event.target !== document.body && figures(event.target).length) drawAll(event.target);
  });
})();
