"use strict";

/** Charts, sortable tables and links to folded provenance. Loaded by the pages of tasks only. */
(() => {
  const darkMode = window.matchMedia("(prefers-color-scheme: dark)");

  function chartConfig() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const font = getComputedStyle(document.body).fontFamily;
    return {
      background: null,
      font,
      view: { stroke: null },
      axis: {
        labelColor: colour("text"),
        labelFontSize: 12,
        labelLimit: 150,
        gridColor: colour("line"),
        domain: false,
        ticks: false,
        labelPadding: 8,
      },
      axisY: { grid: true },
      style: {
        interval: { color: colour("accent"), strokeWidth: 2 },
        point: { color: colour("accent"), stroke: colour("page"), strokeWidth: 1.5, size: 90, shape: "circle" },
        seed: { color: colour("text"), size: 24, shape: "circle" },
        front: { color: colour("accent"), strokeWidth: 1.5, strokeDash: [4, 3] },
        "row-label": { color: colour("text"), fontSize: 11, font },
      },
    };
  }

  async function drawChart(place, specification, metric) {
    const options = {
      actions: false,
      renderer: "svg",
      logLevel: 1, // errors: a metric without values or a table without a ranked row is no fault
      config: chartConfig(),
      tooltip: { theme: darkMode.matches ? "dark" : "light" },
    };
    const drawn = await window.vegaEmbed(place, specification, options);
    await drawn.view.signal("metric", metric).runAsync();
    return drawn;
  }

  function chosen(select) {
    return select ? select.selectedOptions[0] : null;
  }

  function setTexts(board, name, text) {
    for (const place of board.querySelectorAll(`.${name}`)) place.textContent = text;
  }

  class Board {
    constructor(element) {
      this.element = element;
      this.charts = JSON.parse(element.querySelector(".chart-data").textContent);
      this.metricChoice = element.querySelector(".choose-metric");
      this.costChoice = element.querySelector(".choose-cost");
      this.charted = element.querySelector(".charts");
      this.drawn = [];
      this.pending = Promise.resolve();
      this.metricChoice.addEventListener("change", () => {
        this.refresh();
        this.sortByMetric();
      });
      this.costChoice?.addEventListener("change", () => this.refresh());
      darkMode.addEventListener("change", () => this.refresh());
    }

    /** Draw again after whatever is being drawn now. */
    refresh() {
      this.charted.ariaBusy = "true";
      this.pending = this.pending.then(() => this.draw());
      return this.pending;
    }

    async draw() {
      for (const chart of this.drawn.splice(0)) chart.finalize();
      const metric = chosen(this.metricChoice);
      setTexts(this.element, "metric-title", metric.dataset.title);
      setTexts(this.element, "metric-hint", metric.dataset.hint);
      const places = [[".chart.interval", this.charts.interval]];
      if (this.charts.differences) places.push([".chart.differences", this.charts.differences]);
      const cost = chosen(this.costChoice);
      if (cost) {
        setTexts(this.element, "cost-title", cost.dataset.title);
        places.push([".chart.cost", this.charts.costs[cost.value]]);
      }
      for (const [selector, specification] of places) {
        const place = this.element.querySelector(selector);
        this.drawn.push(await drawChart(place, specification, metric.value));
      }
      for (const heading of this.element.querySelectorAll("th[data-metric]")) {
        heading.classList.toggle("chosen", heading.dataset.metric === metric.value);
      }
      this.charted.ariaBusy = "false";
    }

    async makeSortable() {
      const { default: DataTable } = await window.tablesModule;
      this.table = new DataTable(this.element.querySelector("table.results"), {
        paging: false,
        order: [],
        orderMulti: false,
        autoWidth: false,
        columnDefs: [
          { targets: ".number", type: "num" },
          { targets: "_all", type: "html" },
        ],
        layout: { topStart: "search", topEnd: "info", bottomStart: null, bottomEnd: null },
        language: {
          search: "Filter rows",
          info: "_TOTAL_ rows",
          infoEmpty: "no row",
          infoFiltered: "of _MAX_",
          zeroRecords: "No row has this text.",
        },
      });
    }

    sortByMetric() {
      const metric = this.metricChoice.value;
      const headings = [...this.element.querySelectorAll("table.results thead th")];
      const index = headings.findIndex((heading) => heading.dataset.metric === metric);
      const best = chosen(this.metricChoice).dataset.hint.startsWith("higher") ? "desc" : "asc";
      this.table?.order([index, best]).draw();
    }
  }

  /** Unfold what the address points to. */
  function openTarget() {
    const target = document.getElementById(decodeURIComponent(window.location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
      target.querySelector("summary").focus();
    }
  }

  async function start() {
    const boards = [...document.querySelectorAll(".board")].map((element) => new Board(element));
    for (const board of boards) {
      await board.makeSortable();
      await board.refresh();
    }
    openTarget();
    window.addEventListener("hashchange", openTarget);
    document.documentElement.dataset.ready = "yes";
  }

  start();
})();
