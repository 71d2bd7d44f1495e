// Interactive 3D without a limit on the number of viewers: one WebGL context draws each visible canvas in turn.
"use strict";
window.Viewer = (() => {
  const STEPS = 65535, FIELD = 30, DISTANCE = 2.05, KEEP = 48; // KEEP: shapes held on the graphics card
  const VERTEX = `#version 300 es
    in vec3 place; uniform mat4 view, lens; uniform float dot; out vec3 seen;
    void main() { vec4 p = view * vec4(place, 1.0); seen = p.xyz; gl_Position = lens * p; gl_PointSize = dot / max(0.2, -p.z); }`;
  const FRAGMENT = `#version 300 es
    precision highp float; in vec3 seen; uniform vec3 color; uniform bool round; out vec4 pixel;
    void main() {
      vec3 n;
      if (round) { vec2 q = gl_PointCoord * 2.0 - 1.0; float r = dot(q, q); if (r > 1.0) discard; n = vec3(q.x, -q.y, sqrt(1.0 - r)); }
      else { n = normalize(cross(dFdx(seen), dFdy(seen))); n *= sign(n.z); }
      float key = max(0.0, dot(n, normalize(vec3(0.35, 0.6, 0.75)))), rim = max(0.0, dot(n, normalize(vec3(-0.6, -0.2, 0.4))));
      float near = clamp((seen.z + 2.7) / 1.3, 0.0, 1.0);
      pixel = vec4(color * (0.30 + 0.72 * key + 0.16 * rim) * (round ? 0.55 + 0.45 * near : 1.0), 1.0);
    }`;
  let gl = null, programs = null, surface = null, scheduled = false;
  const held = new Map(), visible = new Set(), viewers = new Map();

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  function decode(shape) {
    const raw = new Uint16Array(bytes(shape.v).buffer), places = new Float32Array(raw.length);
    for (let i = 0; i < raw.length; i++) places[i] = shape.low[i % 3] + (raw[i] / STEPS) * shape.size[i % 3];
    const faces = shape.kind === "mesh" ? new (shape.wide ? Uint32Array : Uint16Array)(bytes(shape.f).buffer) : null;
    return { places, faces };
  }

  function start() {
    if (surface) return gl;
    surface = document.createElement("canvas");
    surface.addEventListener("webglcontextlost", (e) => { e.preventDefault(); held.clear(); programs = null; });
    surface.addEventListener("webglcontextrestored", () => { compile(); redraw(); });
    gl = surface.getContext("webgl2", { alpha: true, antialias: true, premultipliedAlpha: true });
    if (gl) compile();
    return gl;
  }
  function compile() {
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text); gl.compileShader(shader); gl.attachShader(program, shader);
    }
    gl.bindAttribLocation(program, 0, "place");
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) { gl = null; return; }
    const at = (name) => gl.getUniformLocation(program, name);
    programs = { program, view: at("view"), lens: at("lens"), dot: at("dot"), color: at("color"), round: at("round") };
  }
  function upload(shape) {
    let kept = held.get(shape);
    if (kept) { held.delete(shape); held.set(shape, kept); return kept; }
    const { places, faces } = decode(shape), array = gl.createVertexArray(), buffers = [gl.createBuffer()];
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffers[0]);
    gl.bufferData(gl.ARRAY_BUFFER, places, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0); gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    if (faces) {
      buffers.push(gl.createBuffer());
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers[1]);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
    }
    gl.bindVertexArray(null);
    kept = { array, buffers, count: faces ? faces.length : places.length / 3, type: shape.wide ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT };
    held.set(shape, kept);
    for (const [old, it] of held) {
      if (held.size <= KEEP) break;
      gl.deleteVertexArray(it.array); it.buffers.forEach((b) => gl.deleteBuffer(b)); held.delete(old);
    }
    return kept;
  }

  const radians = (degrees) => (degrees * Math.PI) / 180;
  function matrix(camera) { // looks at the origin from azimuth (from +z towards +x) and elevation, y up
    const a = radians(camera.azimuth), e = radians(camera.elevation);
    const z = [Math.cos(e) * Math.sin(a), Math.sin(e), Math.cos(e) * Math.cos(a)], x = [Math.cos(a), 0, -Math.sin(a)];
    const y = [z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0]];
    return [x[0], y[0], z[0], 0, x[1], y[1], z[1], 0, x[2], y[2], z[2], 0, 0, 0, -DISTANCE / camera.zoom, 1];
  }
  function lens() {
    const f = 1 / Math.tan(radians(FIELD / 2)), near = 0.05, far = 20;
    return [f, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0];
  }
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
  const dotSize = (shape, side) => side * Math.min(0.05, Math.max(0.01, 0.75 / Math.sqrt(shape.shown)));

  function draw(canvas) {
    const it = viewers.get(canvas), side = Math.round(canvas.clientWidth * Math.min(2, window.devicePixelRatio || 1));
    if (!it || side < 2) return;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const flat = canvas.getContext("2d"), camera = it.camera();
    flat.clearRect(0, 0, side, side);
    if (!start() || !programs) { if (!gl) points(flat, it, camera, side); return; }
    if (surface.width < side || surface.height < side) surface.width = surface.height = side;
    const kept = upload(it.shape), p = programs;
    gl.viewport(0, 0, side, side);
    gl.enable(gl.SCISSOR_TEST); gl.scissor(0, 0, side, side);
    gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT); gl.enable(gl.DEPTH_TEST);
    gl.useProgram(p.program);
    gl.uniformMatrix4fv(p.view, false, matrix(camera)); gl.uniformMatrix4fv(p.lens, false, lens());
    gl.uniform3fv(p.color, rgb(it.color())); gl.uniform1i(p.round, it.shape.kind === "points" ? 1 : 0);
    gl.uniform1f(p.dot, 2 * dotSize(it.shape, side));
    gl.bindVertexArray(kept.array);
    if (it.shape.kind === "mesh") gl.drawElements(gl.TRIANGLES, kept.count, kept.type, 0);
    else gl.drawArrays(gl.POINTS, 0, kept.count);
    gl.bindVertexArray(null);
    flat.drawImage(surface, 0, surface.height - side, side, side, 0, 0, side, side);
    canvas.dataset.drawn = "webgl";
  }
  function points(flat, it, camera, side) { // without WebGL: the vertices as dots, far ones first
    it.plain = it.plain || decode(it.shape).places;
    const m = matrix(camera), f = 1 / Math.tan(radians(FIELD / 2)), step = Math.max(1, Math.floor(it.plain.length / 3 / 6000)), dots = [];
    for (let i = 0; i < it.plain.length; i += 3 * step) {
      const [x, y, z] = [0, 1, 2].map((r) => m[r] * it.plain[i] + m[4 + r] * it.plain[i + 1] + m[8 + r] * it.plain[i + 2] + m[12 + r]);
      if (z < -0.05) dots.push([z, side / 2 + (f * x * side) / (-2 * z), side / 2 - (f * y * side) / (-2 * z)]);
    }
    dots.sort((a, b) => a[0] - b[0]);
    flat.fillStyle = it.color();
    for (const [z, x, y] of dots) { flat.globalAlpha = Math.min(1, Math.max(0.25, 1 + (z + DISTANCE / camera.zoom))); flat.fillRect(x - 1, y - 1, 2.5, 2.5); }
    flat.globalAlpha = 1;
    flat.canvas.dataset.drawn = "points";
  }

  function redraw() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => { scheduled = false; for (const canvas of visible) draw(canvas); });
  }
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) isIntersecting ? visible.add(target) : visible.delete(target);
    redraw();
  }, { rootMargin: "120px" });
  const sizes = new ResizeObserver(redraw);

  function attach(canvas, shape, color, camera) { // camera(): {azimuth, elevation, zoom}, shared by linked viewers
    viewers.set(canvas, { shape, color, camera });
    let from = null;
    const turn = (a, e) => {
      const c = camera();
      c.azimuth = (((c.azimuth + a + 180) % 360) + 360) % 360 - 180;
      c.elevation = Math.max(-89, Math.min(89, c.elevation + e));
      redraw();
    };
    const zoom = (factor) => { const c = camera(); c.zoom = Math.max(0.3, Math.min(8, c.zoom * factor)); redraw(); };
    canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); from = [e.clientX, e.clientY]; });
    canvas.addEventListener("pointermove", (e) => {
      if (!from) return;
      const scale = 180 / canvas.clientWidth;
      turn(-(e.clientX - from[0]) * scale, (e.clientY - from[1]) * scale);
      from = [e.clientX, e.clientY];
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(name, () => { from = null; });
    canvas.addEventListener("wheel", (e) => { if (e.ctrlKey) { e.preventDefault(); zoom(Math.exp(-e.deltaY / 300)); } }, { passive: false });
    const keys = {
      ArrowLeft: () => turn(-10, 0), ArrowRight: () => turn(10, 0), ArrowUp: () => turn(0, 10), ArrowDown: () => turn(0, -10),
      "+": () => zoom(1.2), "=": () => zoom(1.2), "-": () => zoom(1 / 1.2), 0: () => { camera().reset(); redraw(); },
    };
    canvas.addEventListener("keydown", (e) => { if (keys[e.key] && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); keys[e.key](); } });
    canvas.addEventListener("dblclick", () => { camera().reset(); redraw(); });
    observer.observe(canvas); sizes.observe(canvas);
  }
  function release(canvas) { viewers.delete(canvas); visible.delete(canvas); observer.unobserve(canvas); sizes.unobserve(canvas); }
  return { attach, release, redraw, decode };
})();
