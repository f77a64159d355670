// The page's half of widgets.Talker: plays an answer without gaps while it is being made, and shows its words.
// The messages are listed at the head of widgets.py.
//
// Each chunk is laid end to end on the AudioContext's own clock, in whole samples:
//
//   arrives     | 1 |2|3|   4 |                    (when Python has made it)
//   sounds      |lead| 1   | 2   | 3   | 4   |     (when its turn has come)

const FADE_S = 0.01;                         // a voice that is stopped fades: cut off, it would click
const CHARACTERS_PER_SECOND = 14;            // of speech, until the length of the answer is known
const QUIET = 0.01;                          // a chunk with no sample louder than this says no word
const clock = () => performance.timeOrigin + performance.now();   // ms since 1970, never stepping back

const LABELS = { heard: "heard", first_word: "first word", first_sound: "first sound" };

class Talker {
  constructor(model) {
    this.model = model;
    this.turn = null;
    this.views = new Set();
    model.on("msg:custom", (message, buffers) => this[`on_${message.kind}`](message, buffers?.[0]));
    for (const trait of ["earlier", "remembers"]) model.on(`change:${trait}`, () => this.show());
    this.hush = () => this.halt("talked over");
    window.addEventListener("omni-lite:hush", this.hush);
  }

  close() {
    this.halt("closed");
    window.removeEventListener("omni-lite:hush", this.hush);
    this.context?.close();
  }

  tell(message) { this.model.send({ turn: this.turn?.number, ...message }); }

  show() { for (const view of this.views) view(); }

  /** The audio context; a browser starts one only after a click or a key on the page. */
  audio() {
    if (!this.context) {
      this.context = new AudioContext({ sampleRate: this.model.get("rate"), latencyHint: "interactive" });
      this.context.onstatechange = () => { this.listen(); this.show(); };
    }
    if (this.context.state === "suspended") this.context.resume().catch(() => {});
    return this.context;
  }

  // --- from Python -----------------------------------------------------------------------------------

  on_begin({ turn, asked_at }) {
    this.halt("next turn");
    const context = this.audio();
    const voice = new GainNode(context);
    voice.connect(context.destination);
    this.turn = {
      number: turn, asked_at: asked_at ?? clock(), ms: {}, question: "", text: "", spoken: 0, why: "",
      state: "thinking",                     // thinking | talking | over | stopped
      voice, next: null,                     // the sample at which the next chunk sounds
      chunks: [],                            // {source, start, samples, voiced}, samples by the context's clock
      ended: false, played: 0, underruns: 0, gap: 0,
    };
    this.saved = "";
    clearInterval(this.timer);
    this.timer = setInterval(() => this.show(), 50);
    this.show();
  }

  /** Is this message about the answer on the page, and still wanted? */
  wants({ turn }) { return this.turn?.number === turn && !["over", "stopped"].includes(this.turn.state); }

  on_stage(message) { if (this.wants(message)) this.reach(message.stage); }

  on_step(message, buffer) {
    if (!this.wants(message)) return;        // a late word of an answer that was stopped
    if (message.text.trim()) this.reach("first_word");
    this.turn.text += message.text;
    if (buffer?.byteLength) this.queue(message, buffer);
    this.show();
  }

  on_end(message) {
    if (!this.wants(message)) return;
    this.turn.ended = true;
    this.turn.why = message.why;
    this.finish();
  }

  on_question({ turn, text }) {
    if (this.turn?.number === turn) { this.turn.question = text; this.show(); }
  }

  on_stop(message) { if (this.wants(message)) this.halt("python"); }

  on_saved({ text }) { this.saved = text; this.show(); }

  // --- sound -----------------------------------------------------------------------------------------

  queue({ pace }, buffer) {
    const context = this.audio(), turn = this.turn, rate = context.sampleRate;
    const pcm = new Int16Array(buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength));
    const sound = context.createBuffer(1, pcm.length, this.model.get("rate"));
    const samples = sound.getChannelData(0);
    for (let i = 0; i < pcm.length; i++) samples[i] = pcm[i] / 32768;

    const now = Math.ceil(context.currentTime * rate) + 128;          // the soonest that can still be met
    const first = turn.next === null;
    if (first || turn.next < now) {
      if (!first) { turn.underruns++; turn.gap += now - turn.next; }
      // A model slower than its voice gets a head start, or every chunk would come too late.
      const lead_ms = this.model.get("lead_ms") + Math.min(10_000, 3000 * Math.max(0, pace - 0.8));
      turn.next = now + Math.round(lead_ms * rate / 1000) * (first ? 1 : 2);
    }
    const source = new AudioBufferSourceNode(context, { buffer: sound });
    const chunk = { source, start: turn.next, samples: pcm.length, voiced: samples.some((x) => Math.abs(x) > QUIET) };
    source.connect(turn.voice);
    source.start(turn.next / rate);
    source.onended = () => { turn.played += pcm.length; chunk.source = null; this.finish(); };
    turn.chunks.push(chunk);
    turn.next += Math.round(pcm.length * rate / this.model.get("rate"));
    turn.state = "talking";
    this.listen();
  }

  /** Note when the first sample will leave the loudspeaker, unless the browser still withholds all sound. */
  listen() {
    const { context, turn } = this;
    if (turn?.state !== "talking" || context.state !== "running" || "first_sound" in turn.ms) return;
    const wait_s = turn.chunks[0].start / context.sampleRate - context.currentTime;
    this.reach("first_sound", clock() + 1000 * (wait_s + (context.outputLatency || context.baseLatency || 0)));
  }

  /** Silence now: the page does not wait for Python, and no later chunk of this answer sounds. */
  halt(why) {
    const turn = this.turn;
    if (!turn || ["over", "stopped"].includes(turn.state)) return;
    turn.state = "stopped";
    turn.why = { "next turn": "", closed: "" }[why] ?? why;
    const at = this.context.currentTime;
    turn.voice.gain.setValueAtTime(1, at);
    turn.voice.gain.linearRampToValueAtTime(0, at + FADE_S);
    for (const { source } of turn.chunks) if (source) { source.onended = null; source.stop(at + FADE_S); }
    setTimeout(() => turn.voice.disconnect(), 500);
    this.tell({ kind: "stopped", why, played_s: this.sounded_s(turn.chunks) });
    this.rest();
  }

  finish() {
    const turn = this.turn;
    if (!turn.ended || turn.state === "stopped" || turn.chunks.some((chunk) => chunk.source)) return;
    turn.state = "over";
    turn.voice.disconnect();
    this.tell({ kind: "played", samples: turn.played, chunks: turn.chunks.length, underruns: turn.underruns,
      gap_ms: 1000 * turn.gap / this.context.sampleRate });
    this.rest();
  }

  rest() { clearInterval(this.timer); this.show(); }

  // --- what is known about the turn ------------------------------------------------------------------

  /** Note how long after the question's end this stage was reached, the first time that it is. */
  reach(stage, at = clock()) {
    const turn = this.turn;
    if (stage in turn.ms) return;
    turn.ms[stage] = at - turn.asked_at;
    if (stage === "first_sound") this.tell({ kind: "sounding", ms: turn.ms });
    this.show();
  }

  /** Seconds of these chunks that have left the loudspeaker. */
  sounded_s(chunks) {
    const { currentTime, outputLatency, sampleRate } = this.context;
    const now = (currentTime - (outputLatency || 0)) * sampleRate;
    return chunks.reduce((sum, { start, samples }) => sum + Math.min(samples, Math.max(0, now - start)), 0) / sampleRate;
  }

  /** Characters of the text that have been spoken: text and voiced sound are taken to run in step. */
  spoken(turn) {
    if (turn.state === "over") return turn.text.length;
    if (turn.state !== "talking") return turn.spoken;
    const voiced = turn.chunks.filter((chunk) => chunk.voiced);
    const all_s = voiced.reduce((sum, { samples }) => sum + samples, 0) / this.context.sampleRate;
    const at = this.sounded_s(voiced) * (turn.ended ? turn.text.length / (all_s || 1) : CHARACTERS_PER_SECOND);
    const end = at > 0 ? turn.text.indexOf(" ", Math.floor(at)) : 0;            // whole words
    return (turn.spoken = Math.max(turn.spoken, end < 0 ? turn.text.length : end));
  }

  get blocked() { return this.turn?.state === "talking" && this.context.state === "suspended"; }
}

function render({ model, el }, talker) {
  el.classList.add("omni", "omni-talker");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Answer");
  el.innerHTML = `
    <p class="omni-question"></p>
    <p class="omni-answer"><span></span><span class="omni-ahead"></span></p>
    <p class="omni-latency"></p>
    <div class="omni-row">
      <button class="omni-stop">Stop</button>
      <button class="omni-save">Save this turn</button>
      <button class="omni-forget">New conversation</button>
      <button class="omni-unlock">Sound is off: click to hear the answer</button>
      <span class="omni-status" role="status"></span>
    </div>
    <div class="omni-earlier"><p></p><ol></ol></div>`;
  const find = (name) => el.querySelector(`.omni-${name}`);
  const [spoken, ahead] = find("answer").children;
  // JupyterLab's own keys (D D deletes a cell) stay away only if the focused element itself says so.
  for (const button of el.querySelectorAll("button")) button.dataset.lmSuppressShortcuts = "true";
  find("stop").onclick = () => talker.halt("stop button");
  find("save").onclick = () => talker.tell({ kind: "save" });
  find("forget").onclick = () => talker.tell({ kind: "forget" });
  find("unlock").onclick = () => talker.audio();
  const write = (element, text) => { if (element.textContent !== text) element.textContent = text; };

  let listed = "";
  const show = () => {
    const turn = talker.turn, state = turn?.state ?? "idle";
    el.dataset.state = state;
    write(find("question"), turn?.question ?? "");
    const cut = turn ? talker.spoken(turn) : 0;
    write(spoken, turn?.text.slice(0, cut) ?? "");
    write(ahead, turn?.text.slice(cut) ?? "");
    const stages = Object.entries(turn?.ms ?? {}).map(([stage, ms]) => `${LABELS[stage]} ${ms.toFixed(0)} ms`);
    write(find("latency"), stages.length ? `${stages.join("  ·  ")}  after the question ended` : "");
    find("stop").disabled = !["thinking", "talking"].includes(state);
    find("save").hidden = !model.get("savable");
    find("save").disabled = !["over", "stopped"].includes(state);
    find("forget").hidden = !model.get("remembers");
    find("unlock").hidden = !talker.blocked;
    const status = { idle: "Nothing asked yet", thinking: "Thinking …", talking: "Talking",
      over: turn?.why, stopped: turn?.why && `Stopped (${turn.why})` }[state];
    write(find("status"), talker.saved || (talker.blocked ? "" : status || ""));
    const earlier = model.get("earlier").filter(([number]) => number !== turn?.number);
    if (listed !== JSON.stringify(earlier)) {
      listed = JSON.stringify(earlier);
      find("earlier").lastChild.replaceChildren(...earlier.map(([number, question, answer]) => {
        const item = Object.assign(document.createElement("li"), { value: number });
        item.append(question, document.createElement("br"), answer);
        return item;
      }).reverse());
    }
    write(find("earlier").firstChild, model.get("remembers") ? "Earlier turns of this conversation."
      : "Earlier turns; the model does not remember them.");
    find("earlier").hidden = !earlier.length;
  };
  const unlock = () => talker.context && talker.audio();
  document.addEventListener("pointerdown", unlock);
  document.addEventListener("keydown", unlock);
  if (navigator.userActivation?.hasBeenActive) talker.audio();         // ready before the first answer
  talker.views.add(show);
  show();
  return () => {
    talker.views.delete(show);
    document.removeEventListener("pointerdown", unlock);
    document.removeEventListener("keydown", unlock);
  };
}

export default () => {
  let talker;
  return {
    initialize({ model }) {
      talker = new Talker(model);
      return () => talker.close();
    },
    render: (context) => render(context, talker),
  };
};
