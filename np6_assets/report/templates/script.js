(function () {
  "use strict";
  function all(what, within) { return Array.prototype.slice.call((within || document).querySelectorAll(what)); }
  function percent(part, whole) { return (100 * part / whole).toFixed(2) + "%"; }

  // --- what is said of a place, beside it
  var tip = document.getElementById("tip");
  function say(text, x, y, beside) {
    tip.textContent = text;
    tip.hidden = false;
    var wide = tip.offsetWidth, room = document.documentElement.clientWidth - wide - 8;
    var left = !beside ? x - wide / 2 : x + 14 <= room ? x + 14 : x - wide - 14, above = y - tip.offsetHeight - 10;
    tip.style.left = Math.min(Math.max(left, 8), room) + scrollX + "px";
    tip.style.top = (beside ? y : above < 0 ? y + 18 : above) + scrollY + "px";
  }
  function hush() { tip.hidden = true; all(".at").forEach(function (each) { each.hidden = true; }); }
  addEventListener("keydown", function (event) { if (event.key === "Escape") { hush(); } });

  // --- the charts over time: one slider
  var panels = document.getElementById("panels"), places = panels.dataset.places.split(" ").filter(Boolean).map(Number);
  var days = all("#days tbody tr"), heads = all("#days thead th"), plots = all(".plot", panels);
  var heights = plots.map(function (plot) { return plot.dataset.heights.split(" "); });
  function words(row) {
    return all("th, td", row).map(function (cell, at) {
      if (!at) { return cell.dataset.text; }
      var interval = cell.querySelector(".ci");
      return heads[at].textContent + ": " + cell.firstChild.textContent.trim() + (interval ? " (" + interval.textContent + ")" : "");
    }).join("\n");
  }
  function goTo(at, near) {
    if (!days[at]) { return; }
    panels.setAttribute("aria-valuenow", at);
    panels.setAttribute("aria-valuetext", words(days[at]).replace(/\n/g, ", "));
    plots.forEach(function (plot, number) {
      var mark = plot.querySelector(".at"), up = heights[number][at];
      mark.hidden = false;
      mark.style.left = places[at] + "%";
      mark.style.setProperty("--up", up === "None" ? "-100rem" : up + "%");
    });
    var box = (near || plots[0]).getBoundingClientRect();
    say(words(days[at]), box.left + box.width * places[at] / 100, box.top, true);
  }
  plots.forEach(function (plot) {
    plot.addEventListener("pointermove", function (event) {
      var box = plot.getBoundingClientRect(), at = 0, x = 100 * (event.clientX - box.left) / box.width;
      places.forEach(function (place, number) { if (Math.abs(place - x) < Math.abs(places[at] - x)) { at = number; } });
      goTo(at, plot);
    });
    plot.addEventListener("pointerleave", hush);
  });
  var moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -7, PageUp: 7, Home: -1e9, End: 1e9 };
  panels.addEventListener("keydown", function (event) {
    if (!(event.key in moves)) { return; }
    event.preventDefault();
    goTo(Math.min(Math.max(+panels.getAttribute("aria-valuenow") + moves[event.key], 0), places.length - 1));
  });
  panels.addEventListener("focus", function () { goTo(+panels.getAttribute("aria-valuenow")); });
  panels.addEventListener("blur", hush);

  // --- small charts, the heat map and the bars: one stop of the tab key each, and arrow keys inside
  var table = document.getElementById("list"), step = +table.dataset.step, last = Date.parse(table.dataset.last);
  function day(back) { return new Date(last - 864e5 * back).toISOString().slice(0, 10); }
  function point(spark, at) {
    var counts = spark.dataset.counts.split(" "), back = (counts.length - 1 - at) * step, pair = counts[at].split("/");
    var when = step === 1 ? day(back) : "Week to " + day(back);
    spark.dataset.at = at;
    return when + ": " + (counts[at] ? percent(+pair[0], +pair[1]) + ", " + (+pair[0]).toLocaleString("en") + " of " + (+pair[1]).toLocaleString("en") : "nothing sent");
  }
  function tell(item, x) {
    var box = item.getBoundingClientRect(), text = item.getAttribute("aria-label"), middle = box.left + box.width / 2;
    if (item.dataset.counts) {
      var number = item.dataset.counts.split(" ").length, at = item.dataset.at === undefined ? number - 1 : +item.dataset.at;
      if (x !== undefined) { at = Math.min(Math.max(Math.floor((x - box.left) / box.width * number), 0), number - 1); }
      text = point(item, at);
      middle = box.left + box.width * (at + .5) / number;
    }
    say(text, middle, box.top);
  }
  all("[data-rove]").forEach(function (group) {
    var items = all("[tabindex]", group);
    if (items.length) { items[0].tabIndex = 0; }
    function over(event) { var item = event.target.closest("[data-rove] [tabindex]"); if (item) { tell(item, event.clientX); } else { hush(); } }
    group.addEventListener("pointermove", over);
    group.addEventListener("pointerdown", over);
    group.addEventListener("pointerleave", hush);
    group.addEventListener("focusout", hush);
    group.addEventListener("focusin", function (event) { if (items.indexOf(event.target) >= 0) { tell(event.target); } });
    group.addEventListener("keydown", function (event) {
      if (items.indexOf(event.target) < 0 || event.key.indexOf("Arrow")) { return; }
      event.preventDefault();
      if (event.target.dataset.counts && /Left|Right/.test(event.key)) {
        var number = event.target.dataset.counts.split(" ").length, was = event.target.dataset.at;
        var to = (was === undefined ? number - 1 : +was) + (event.key === "ArrowLeft" ? -1 : 1);
        event.target.dataset.at = Math.min(Math.max(to, 0), number - 1);
        tell(event.target);
        return;
      }
      // the one that is nearest in that direction, as the eye sees it
      var from = event.target.getBoundingClientRect(), best = null, least = Infinity;
      var dx = { ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0, dy = { ArrowUp: -1, ArrowDown: 1 }[event.key] || 0;
      items.forEach(function (item) {
        var box = item.getBoundingClientRect(), x = box.left - from.left, y = box.bottom - from.bottom;
        var along = x * dx + y * dy, across = Math.abs(x * dy) + Math.abs(y * dx);
        if (box.width && along > 1 && along + 50 * across < least) { least = along + 50 * across; best = item; }
      });
      if (!best) { return; }
      event.target.tabIndex = -1;
      best.tabIndex = 0;
      best.focus();
    });
  });

  // --- the table of notifications
  var body = table.tBodies[0], columns = all("th", table.tHead), rows = all("tr", body), shown = +table.dataset.shown;
  var search = document.getElementById("search"), found = document.getElementById("found"), more = document.getElementById("all");
  var collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  function show() {
    var wanted = search.value.trim().toLocaleLowerCase(), number = 0, few = more && !wanted && !more.hidden;
    rows.forEach(function (row) {
      var is = row.cells[0].textContent.toLocaleLowerCase().indexOf(wanted) >= 0;
      number += is;
      row.hidden = !is || (few && number > shown);
    });
    found.textContent = wanted ? number + " of " + rows.length + " shown" : few ? shown + " of " + rows.length + " shown" : rows.length + (rows.length === 1 ? " notification" : " notifications");
  }
  columns.forEach(function (head, column) {
    var button = head.querySelector("button");
    if (!button) { return; }
    button.addEventListener("click", function () {
      var text = head.dataset.kind === "text", was = head.getAttribute("aria-sort"), up = was ? was === "descending" : text;
      columns.forEach(function (each) { each.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      var keyed = rows.map(function (row) { var value = row.cells[column].dataset.value; return [text ? value : +value, row]; });
      keyed.sort(function (a, b) {
        if (!text && (a[0] < 0 || b[0] < 0)) { return (a[0] < 0) - (b[0] < 0); }
        var order = text ? collator.compare(a[0], b[0]) : a[0] - b[0];
        return up ? order : -order;
      });
      rows = keyed.map(function (pair) { body.appendChild(pair[1]); return pair[1]; });
      show();
    });
  });
  search.addEventListener("input", show);
  if (more) { more.addEventListener("click", function () { more.hidden = true; show(); search.focus(); }); }
  show();
})();
