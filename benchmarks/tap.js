// Measuring only: everything a page plays, sample by sample, on whatever AudioContext, and when it was heard.
// Added to a page before its own scripts run. Taps each node that connects to a destination.
(() => {
  const COLLECTOR = `registerProcessor("tap", class extends AudioWorkletProcessor {
    process([[channel]]) { if (channel) this.port.postMessage([currentFrame, channel.slice()]); return true; } });`;
  const wall = (ms) => performance.timeOrigin + ms;
  const tap = (window.tap = { contexts: [], released: 0, pressed: 0 });
  const connect = AudioNode.prototype.connect;

  function attach(context) {
    if (context.tapped) return context.tapped;
    const gate = new GainNode(context);
    const record = (context.tapped = { context, gate, blocks: [] });
    tap.contexts.push(record);
    const url = URL.createObjectURL(new Blob([COLLECTOR], { type: "text/javascript" }));
    record.ready = context.audioWorklet.addModule(url).then(() => {
      const node = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0 });
      node.port.onmessage = ({ data: [frame, samples] }) => {
        if (samples.some((x) => x !== 0)) record.heard = clockOf(context, frame / context.sampleRate);
        if (record.blocks.length < 50000) record.blocks.push([frame, samples, record.heard]);
      };
      connect.call(gate, node);
    });
    return record;
  }

  /** Wall clock, in ms, at which the sample of this context time leaves the device. */
  function clockOf(context, time) {
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    return wall(performanceTime + 1000 * (time - contextTime));
  }

  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode && this.context instanceof AudioContext)
      connect.call(this, attach(this.context).gate);
    return connect.call(this, target, ...rest);
  };
  for (const [event, name] of [["pointerdown", "pressed"], ["pointerup", "released"]])
    window.addEventListener(event, ({ timeStamp }) => { tap[name] = wall(timeStamp); }, true);

  /** What sounded since the last call, without the silence around it: base64 float32, and when. */
  tap.take = () => {
    const record = tap.contexts[tap.contexts.length - 1];
    if (!record) return null;
    const blocks = record.blocks.splice(0);
    const sounding = blocks.map(([, samples], i) => (samples.some((x) => x !== 0) ? i : -1)).filter((i) => i >= 0);
    if (!sounding.length) return null;
    const first = sounding[0], last = sounding[sounding.length - 1];
    const samples = [];
    let lost = 0, expected = blocks[first][0];
    for (const [frame, block] of blocks.slice(first, last + 1)) {
      lost += frame - expected;
      expected = frame + block.length;
      for (const x of block) samples.push(x);
    }
    const bytes = new Uint8Array(new Float32Array(samples).buffer);
    let text = "";
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    const offset = blocks[first][1].findIndex((x) => x !== 0) / record.context.sampleRate;
    return { samples: btoa(text), lost, rate: record.context.sampleRate,
      first_ms: blocks[first][2] + 1000 * offset, last_ms: blocks[last][2],
      released_ms: tap.released, pressed_ms: tap.pressed };
  };
})();
