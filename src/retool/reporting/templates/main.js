// The page comes to life: the trajectories first, for somebody may want to read them while the charts are drawn.

async function openBrowser() {
  const archive = await Archive.open();
  const browser = byId("browser");
  const reader = new Reader(byId("reader"), archive);
  const list = new List(byId("list"), archive, (row) => {
    browser.classList.add("reading"); // on a narrow screen, in place of the list
    history.replaceState(null, "", `#t=${row}`);
    return reader.read(row);
  });
  reader.onback = () => browser.classList.remove("reading");
  const filters = new Filters(archive, () => {
    reader.query = filters.query;
    list.show(filters.rows());
    highlightFound(reader.body, filters.query);
  });
  list.show(filters.rows());
  listenToKeys({ list, reader, filters });

  const [, linked] = /^#t=(\d+)$/.exec(location.hash) ?? [];
  if (Number(linked) < archive.size) {
    list.pick(list.order.indexOf(Number(linked)));
    byId("trajectories").scrollIntoView({ behavior: "instant" });
  } else {
    list.picked = list.order[0];
    list.draw();
    await reader.read(list.picked);
  }
}

async function open() {
  if (byId("browser")) {
    try {
      await openBrowser();
    } catch (error) {
      const reason = `The trajectories could not be opened: ${error.message}`;
      byId("browser").replaceChildren(element("p", { class: "nothing" }, reason));
    }
  }
  document.documentElement.dataset.ready = "yes";
  await drawCharts();
}

open();
