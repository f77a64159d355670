// The page's half of widgets.Recorder: push to talk by mouse, touch, Space or Enter; level meter; sound files.
// The messages are listed at the head of widgets.py.

const PIECE_S = 0.25;                        // sent while recording, so that little is left to send at the end
const SHORTEST_S = 0.2;                      // less was a click, not a question
const FILE_SLICE = 1 << 19;                  // bytes a message
const LARGEST_FILE = 50e6;
const READ_BY_PYTHON = /\.(wav|flac|ogg|oga|opus|mp3|m4a|mp4|webm|mov|aac|amr|3gp|caf)$/i;   // others are decoded here
const HOW = "Hold the button or the space bar, and ask";
const clock = () => performance.timeOrigin + performance.now();   // ms since 1970, never stepping back

const COLLECTOR = `registerProcessor("omni-collector", class extends AudioWorkletProcessor {
  process([[channel]]) { if (channel) this.port.postMessage(channel.slice()); return true; }
});`;

const WHY = {
  NotAllowedError: "The browser refused the microphone: allow it beside the address",
  NotFoundError: "No microphone was found: plug one in",
  NotReadableError: "The microphone is in use by another program: close that",
};

/** Why no microphone can be had on this page, or null. */
function noMicrophoneHere() {
  if (location.protocol === "vscode-webview:") return "VS Code gives notebooks no microphone: use JupyterLab";
  if (!window.isSecureContext)
    return "The browser gives a microphone to secure pages only: open this one by https or as localhost";
  if (!navigator.mediaDevices?.getUserMedia) return "This browser gives this page no microphone: use another browser";
  return null;
}

/** One engine per Python object; the views only show its state. */
class Recorder {
  constructor(model) {
    this.model = model;
    this.state = "idle";                     // idle | opening | recording | hint | refused
    this.message = HOW;
    this.level = 0;                          // 0..1, of the last moments
    this.held = false;
    this.views = new Set();
    model.on("msg:custom", ({ text, hint }) => this.answered(text, hint));
    const why = noMicrophoneHere();
    if (why) this.refuse(why);
    else navigator.permissions?.query({ name: "microphone" })
      .then(({ state }) => { if (state === "denied") this.refuse(WHY.NotAllowedError); }, () => {});
  }

  tell(message, buffer) { this.model.send(message, undefined, buffer ? [buffer] : undefined); }

  show() { for (const view of this.views) view(); }

  say(message, state = "idle") {
    this.message = message;
    this.state = state;
    this.show();
  }

  refuse(why) {
    this.say(`${why}, or ask from a file.`, "refused");
    this.tell({ kind: "refused", why: this.message });
  }

  /** Whoever is talking on this page falls silent now, without asking Python; Python stops the model. */
  hush() {
    window.dispatchEvent(new Event("omni-lite:hush"));
    this.tell({ kind: "press" });
  }

  // --- microphone ------------------------------------------------------------------------------------

  async open() {
    if (this.microphone) return this.microphone;
    const why = noMicrophoneHere();
    if (why) throw { why };
    const processing = this.model.get("processing");
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: processing, noiseSuppression: processing, autoGainControl: processing },
    });
    let context = new AudioContext({ sampleRate: this.model.get("rate") }), source;
    try {
      source = context.createMediaStreamSource(stream);
    } catch {                                // Firefox joins no two rates: Python resamples
      context.close();
      context = new AudioContext();
      source = context.createMediaStreamSource(stream);
    }
    const url = URL.createObjectURL(new Blob([COLLECTOR], { type: "text/javascript" }));
    await context.audioWorklet.addModule(url);
    URL.revokeObjectURL(url);
    const collector = new AudioWorkletNode(context, "omni-collector", { numberOfOutputs: 0 });
    collector.port.onmessage = ({ data }) => this.take(data);
    source.connect(collector);
    await context.resume();
    stream.getTracks()[0].onended = () => { this.close(); this.refuse("The microphone was unplugged: plug it in"); };
    return (this.microphone = { stream, context, rate: context.sampleRate });
  }

  close() {
    clearTimeout(this.closing);
    if (!this.microphone) return;
    for (const track of this.microphone.stream.getTracks()) { track.onended = null; track.stop(); }
    this.microphone.context.close();
    this.microphone = null;
  }

  async press() {
    if (this.held) return;
    this.held = true;
    clearTimeout(this.closing);
    this.hush();
    this.say("Opening the microphone …", "opening");
    try {
      this.opening ??= this.open();
      const { rate } = await this.opening;
      if (!this.held) return this.say("The microphone is ready: hold the button and ask");
      this.recording = { take: Math.random(), seq: 0, rate, pieces: [], waiting: 0, samples: 0 };
      this.say("Listening", "recording");
    } catch (error) {
      this.held = false;
      this.refuse(error.why ?? WHY[error.name] ?? `The microphone could not be opened (${error.message})`);
    } finally {
      this.opening = null;
    }
  }

  take(samples) {
    const recording = this.recording;
    if (!recording) return;
    recording.pieces.push(samples);
    recording.waiting += samples.length;
    recording.samples += samples.length;
    this.level = Math.max(this.level * 0.97, samples.reduce((peak, x) => Math.max(peak, Math.abs(x)), 0));
    if (recording.waiting >= PIECE_S * recording.rate) this.send(recording, false);
    if (recording.samples >= (this.model.get("max_s") - PIECE_S) * recording.rate) this.release();
    if (recording.samples % 512 < samples.length) this.show();       // every 32 ms
  }

  /** Send what waits; with the last piece goes the moment at which the question ended. */
  send(recording, last) {
    const samples = new Float32Array(recording.waiting);
    let at = 0;
    for (const piece of recording.pieces) { samples.set(piece, at); at += piece.length; }
    recording.pieces = [];
    recording.waiting = 0;
    const { take, rate } = recording;
    this.tell({ kind: "sound", take, rate, seq: recording.seq++, last, released: clock() }, samples.buffer);
  }

  release() {
    if (!this.held) return;
    this.held = false;
    const recording = this.recording;
    this.recording = null;
    this.level = 0;
    if (!recording) return;                  // still opening: press() will see it
    this.closing = setTimeout(() => this.close(), 1000 * this.model.get("keep_open_s"));
    if (recording.samples < SHORTEST_S * recording.rate) return this.say("Hold the button while you speak");
    this.send(recording, true);
    this.sent(HOW);
  }

  /** Python answers at once, unless a cell keeps it busy or it is gone. */
  sent(text) {
    this.say(text);
    clearTimeout(this.unanswered);
    this.unanswered = setTimeout(() => this.say("No reply from Python yet: it may be running another cell.", "refused"), 3000);
  }

  /** text: what was wrong with the question, or ""; hint: say it quietly, for example that nobody spoke. */
  answered(text, hint) {
    clearTimeout(this.unanswered);
    if (text) this.say(text, hint ? "hint" : "refused");
    else if (this.state === "refused") this.say(HOW);
  }

  // --- files -----------------------------------------------------------------------------------------

  async ask(file) {
    this.hush();
    const take = Math.random(), released = clock();
    if (file.size > LARGEST_FILE) return this.say(`${file.name} is larger than 50 MB: cut it to one question.`, "refused");
    const bytes = await file.arrayBuffer();
    if (READ_BY_PYTHON.test(file.name)) {
      for (let seq = 0, at = 0; seq === 0 || at < bytes.byteLength; seq++, at += FILE_SLICE) {
        const last = at + FILE_SLICE >= bytes.byteLength;
        this.tell({ kind: "file", name: file.name, take, seq, last, released }, bytes.slice(at, at + FILE_SLICE));
      }
      return this.sent(`Asked from ${file.name}`);
    }
    try {
      const sound = await new OfflineAudioContext(1, 1, 48000).decodeAudioData(bytes);
      const recording = { take, seq: 0, rate: sound.sampleRate, pieces: [sound.getChannelData(0)], waiting: sound.length };
      this.send(recording, true);
      this.sent(`Asked from ${file.name}`);
    } catch {
      this.say(`${file.name} cannot be read as sound: convert it to wav first.`, "refused");
    }
  }
}

const MICROPHONE = `<svg viewBox="0 0 24 24" aria-hidden="true"><rect x="9" y="2" width="6" height="12" rx="3"/>
  <path d="M5 11a7 7 0 0 0 14 0M12 18v4M8 22h8"/></svg>`;

function render({ model, el }, recorder) {
  el.classList.add("omni", "omni-recorder");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Ask a question");
  el.innerHTML = `
    <button class="omni-talk" aria-pressed="false">${MICROPHONE}<span></span></button>
    <div class="omni-meter" role="meter" aria-label="Level of the microphone" aria-valuemin="0" aria-valuemax="100"><i></i></div>
    <span class="omni-status" role="status"></span>
    <button class="omni-file">Ask from a file</button>
    <input type="file" accept="audio/*,video/webm,video/mp4,.wav,.flac,.ogg,.opus,.mp3,.m4a,.webm,.amr,.caf" hidden>`;
  const [talk, meter, status, file, input] = el.children;
  // JupyterLab's own keys (D D deletes a cell) stay away only if the focused element itself says so.
  for (const button of [talk, file]) button.dataset.lmSuppressShortcuts = "true";

  talk.onpointerdown = (event) => {
    if (event.button) return;
    talk.setPointerCapture(event.pointerId);
    recorder.press();
  };
  talk.onpointerup = talk.onpointercancel = talk.onlostpointercapture = () => recorder.release();
  talk.oncontextmenu = (event) => event.preventDefault();            // a long touch
  talk.onclick = (event) => {                                        // Enter, or a screen reader: on, then off
    if (event.detail === 0) recorder.held ? recorder.release() : recorder.press();
  };
  let bySpace = false;
  const space = (event) => {
    const onPage = document.activeElement === document.body && !document.querySelector(".jp-NotebookPanel");
    const ours = event.type === "keyup" ? bySpace : onPage || document.activeElement === talk;
    if (event.key !== " " || !ours) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat) return;
    bySpace = event.type === "keydown";
    bySpace ? recorder.press() : recorder.release();
  };
  const away = () => recorder.release();
  document.addEventListener("keydown", space, true);
  document.addEventListener("keyup", space, true);
  window.addEventListener("blur", away);
  file.onclick = () => input.click();
  input.onchange = () => { if (input.files[0]) recorder.ask(input.files[0]); input.value = ""; };

  const show = () => {
    const on = recorder.state === "recording";
    el.dataset.state = recorder.state;
    talk.setAttribute("aria-pressed", on);
    talk.querySelector("span").textContent = on ? "Let go to send" : "Hold to talk";
    const seconds = on ? `, ${(recorder.recording.samples / recorder.recording.rate).toFixed(0)} s` : "";
    const text = recorder.message + seconds;
    if (status.textContent !== text) status.textContent = text;
    const percent = Math.round(100 * Math.max(0, 1 + Math.log10(Math.max(recorder.level, 1e-3)) / 2.5));   // -50..0 dB
    meter.setAttribute("aria-valuenow", percent);
    meter.firstChild.style.transform = `scaleX(${percent / 100})`;
  };
  recorder.views.add(show);
  show();
  return () => {
    recorder.views.delete(show);
    document.removeEventListener("keydown", space, true);
    document.removeEventListener("keyup", space, true);
    window.removeEventListener("blur", away);
  };
}

export default () => {
  let recorder;
  return {
    initialize({ model }) {
      recorder = new Recorder(model);
      return () => recorder.close();
    },
    render: (context) => render(context, recorder),
  };
};
