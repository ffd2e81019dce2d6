// Keys, as the help shows them. They are left alone while somebody writes, and with Ctrl, Alt or Meta.

function listenToKeys({ list, reader, filters }) {
  const help = byId("help");
  const actions = {
    j: () => list.pick(list.position + 1),
    k: () => list.pick(list.position - 1),
    c: () => reader.toggleComparison(),
    t: () => reader.nextView(),
    "/": () => filters.fields.query.focus(),
    "?": () => (help.open ? help.close() : help.showModal()),
    Escape: () => (reader.beside === null ? filters.query && filters.clearSearch() : reader.toggleComparison()),
  };
  const inBrowser = { ArrowDown: actions.j, ArrowUp: actions.k };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || (help.open && event.key !== "?")) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") leaveField(event.target);
      return;
    }
    const action = actions[event.key] ?? (event.target === list.place ? inBrowser[event.key] : null);
    if (!action) return;
    event.preventDefault();
    if (event.key.length === 1 && event.key !== "?") byId("trajectories").scrollIntoView({ behavior: "instant" });
    action();
  });

  function leaveField(field) {
    if (field === filters.fields.query) filters.clearSearch();
    list.place.focus();
  }

  byId("help-button").addEventListener("click", actions["?"]);
}
