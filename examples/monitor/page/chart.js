// One line over time, from 0 to 100 percent, drawn on a canvas.

const RIGHT = 30; // room for the scale
const BELOW = 14; // room for the times
const ABOVE = 7; // half a digit of the scale

/** Points are `[milliseconds, percent]` in order. A longer pause than `gap` is left open. */
export function draw(canvas, points, { now, span, gap, color }) {
  const style = getComputedStyle(canvas);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const [right, bottom] = [width - RIGHT, height - BELOW];
  const x = at => right - ((now - at) / span) * right;
  const y = percent => bottom - 4 - (percent / 100) * (bottom - 4 - ABOVE);

  pen.font = "10px system-ui, sans-serif";
  pen.fillStyle = style.getPropertyValue("--faint");
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  for (const percent of [0, 50, 100]) {
    const level = Math.round(y(percent)) + 0.5;
    pen.beginPath();
    pen.moveTo(0, level);
    pen.lineTo(right, level);
    pen.stroke();
    pen.fillText(`${percent}`, right + 6, level);
  }
  pen.textBaseline = "alphabetic";
  for (const [part, align] of [[1, "left"], [0.5, "center"], [0, "right"]]) {
    pen.textAlign = align;
    pen.fillText(clock(now - part * span, span), right - part * right, height - 2);
  }
  pen.textAlign = "left";

  pen.save();
  pen.beginPath();
  pen.rect(0, 0, right, bottom);
  pen.clip();
  pen.strokeStyle = pen.fillStyle = style.getPropertyValue(color);
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  for (const piece of pieces(points, gap)) {
    const path = new Path2D();
    piece.forEach(([at, percent], index) => (index ? path.lineTo(x(at), y(percent)) : path.moveTo(x(at), y(percent))));
    if (piece.length === 1) path.lineTo(x(piece[0][0]) + 1, y(piece[0][1]));
    pen.stroke(path);
    path.lineTo(x(piece.at(-1)[0]), y(0));
    path.lineTo(x(piece[0][0]), y(0));
    pen.globalAlpha = 0.14;
    pen.fill(path);
    pen.globalAlpha = 1;
  }
  pen.restore();
}

function pieces(points, gap) {
  const pieces = [];
  let last = -Infinity;
  for (const point of points) {
    if (point[0] - last > gap) pieces.push([]);
    pieces.at(-1).push(point);
    last = point[0];
  }
  return pieces;
}

function clock(at, span) {
  const seconds = span <= 300_000 ? "2-digit" : undefined;
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: seconds, hour12: false });
}
