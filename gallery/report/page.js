"use strict";
/* Quieter players than the browser's own, one sounding at a time, and a walk between the pairs by arrow keys. */
(() => {
  const clock = (seconds) => {
    const whole = Math.max(0, Math.round(seconds || 0));
    return Math.floor(whole / 60) + ":" + String(whole % 60).padStart(2, "0");
  };
  const make = (name, attributes) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const sounds = [];

  for (const player of document.querySelectorAll(".player")) {
    const audio = player.querySelector("audio");
    const title = player.dataset.title;
    const said = Number(player.dataset.seconds);
    const button = make("button", { type: "button", class: "play" });
    const place = make("input", { type: "range", min: "0", max: "1000", step: "1", value: "0", class: "place" });
    const time = make("span", { class: "time", "aria-hidden": "true" });
    const length = () => (Number.isFinite(audio.duration) && audio.duration > 0 ? audio.duration : said);
    const show = () => {
      const whole = length();
      const share = whole > 0 ? Math.min(1, audio.currentTime / whole) : 0;
      const playing = !audio.paused && !audio.ended;
      button.setAttribute("aria-label", (playing ? "Pause: " : "Play: ") + title);
      player.classList.toggle("sounds", playing);
      place.value = String(Math.round(1000 * share));
      place.setAttribute("aria-valuetext", clock(audio.currentTime) + " of " + clock(whole));
      time.textContent = audio.currentTime > 0 ? clock(audio.currentTime) + " / " + clock(whole) : clock(whole);
      bar.setAttribute("width", String(1000 * share));
    };
    const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    line.setAttribute("viewBox", "0 0 1000 2");
    line.setAttribute("preserveAspectRatio", "none");
    line.setAttribute("aria-hidden", "true");
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    bar.setAttribute("height", "2");
    line.append(bar);
    const track = make("span", { class: "track" });
    track.append(line, place);
    place.setAttribute("aria-label", "Place in " + title);
    const fail = () => {
      if (player.querySelector("[role=alert]")) return;
      const note = make("p", { class: "small-print", role: "alert" });
      note.textContent = "This browser cannot play this sound.";
      player.append(note);
    };
    button.addEventListener("click", () => {
      if (!audio.paused) return audio.pause();
      for (const other of sounds) if (other !== audio) other.pause();
      // A pause before it began is no failure.
      audio.play().catch((error) => error.name === "AbortError" || fail());
    });
    place.addEventListener("input", () => {
      if (audio.readyState === 0) audio.load();
      const seek = () => { audio.currentTime = (length() * Number(place.value)) / 1000; };
      if (audio.readyState > 0) seek();
      else audio.addEventListener("loadedmetadata", seek, { once: true });
    });
    for (const event of ["play", "pause", "ended", "timeupdate", "durationchange"]) audio.addEventListener(event, show);
    audio.addEventListener("error", fail);
    audio.removeAttribute("controls");
    sounds.push(audio);
    player.prepend(button, track, time);
    show();
  }

  const pairs = [...document.querySelectorAll(".pair")];
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const here = () => {
    const held = document.activeElement && document.activeElement.closest(".pair");
    if (held) return pairs.indexOf(held);
    if (document.activeElement && document.activeElement.id === "pairs") return -1;
    const middle = window.innerHeight / 2;
    const passed = pairs.filter((pair) => pair.getBoundingClientRect().top < middle);
    return passed.length - 1;
  };
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
    if (event.target.closest("input, audio, textarea, select, .drawing")) return;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = pairs[Math.min(pairs.length - 1, Math.max(0, here() + step))];
    if (!next) return;
    event.preventDefault();
    next.focus({ preventScroll: true });
    next.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
  });
  if (pairs.length > 1) document.documentElement.classList.add("walks");
})();
